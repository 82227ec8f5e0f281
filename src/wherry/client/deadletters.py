"""Dead letters: what was given up, to be looked at, sent again or dropped; held scopes too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..broker import deadletters as broker
from ..broker.wire import check_scope_id
from ..errors import BacklogFull
from ..model import ORIGIN, DeadLetter, EntryId, Partition, id_key
from .session import Opened, Session

PAGE = 100
_REPLAYED_AT_ONCE = 32
MOST_HELD = 1_000


class DeadLetters:
    """`Client.dead_letters`: the dead letters of one namespace.

    A letter is named by its partition and its ``letter_id``. Every method raises `WherryError` as
    `Client.send` does; after `StoreUnavailable` a call may be made again without harm: what was
    replayed or dropped already is not there any more.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        """Share a client's session."""
        self._session = session

    async def partitions(self) -> range:
        """All partitions of the namespace."""
        return range((await self._open()).partitions)

    async def unix_ms(self) -> int:
        """Redis' clock, by which letters die: what their age is counted by."""
        seconds, microseconds = await (await self._open()).link.call("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def page(
        self, partition: int, *, after: str = ORIGIN, count: int = PAGE
    ) -> list[DeadLetter]:
        """Up to ``count`` (at most 1,000) letters of a partition behind an id, oldest first.

        The ``letter_id`` of the last one is the ``after`` of the next page.
        """
        opened = await self._open()
        return await broker.read_letters(
            opened.link,
            self._session.keys,
            Partition(partition),
            after=after,
            count=max(1, min(count, 1_000)),
        )

    async def get(self, partition: int, letter_id: str) -> DeadLetter | None:
        """One letter, None if there is none of that id."""
        opened = await self._open()
        keys = self._session.keys
        return await broker.get_letter(opened.link, keys, Partition(partition), letter_id)

    async def replay(self, partition: int, *letter_ids: str) -> list[EntryId | None]:
        """Send letters again, in the order given, behind what waits; past the message id.

        The new entry has all of the old one but who waited for its answer and when it expires,
        and the id of the first one in its field ``o``.

        Returns:
            The ids of the new entries, None for a letter that is not there (any more).

        Raises:
            BacklogFull: no room for all; ``accepted`` has the ids of those that were replayed.
        """
        opened, replayed = await self._open(), list[EntryId | None]()
        backlog = self._session.config.backlog
        for start in range(0, len(letter_ids), _REPLAYED_AT_ONCE):
            answers = await broker.replay_letters(
                opened.link,
                opened.scripts.replay,
                self._session.keys,
                Partition(partition),
                letter_ids[start : start + _REPLAYED_AT_ONCE],
                backlog=backlog,
            )
            replayed += [EntryId(one) if one else None for one in answers]
            if None in answers:
                error = BacklogFull(partition, backlog)
                error.accepted = cast("Sequence[EntryId | None]", replayed)
                raise error
        return replayed

    async def replay_scope(self, scope_id: str) -> int:
        """Send all letters of a scope again, oldest first; returns how many there were.

        Those that die again meanwhile are left alone.
        """
        scope, opened = check_scope_id(scope_id), await self._open()
        partition = opened.partition_of(scope)
        last = await broker.last_letter_id(opened.link, self._session.keys, partition)
        count, after = 0, ORIGIN
        while letters := await self.page(partition, after=after):
            after = letters[-1].letter_id
            known = [one for one in letters if id_key(one.letter_id) <= id_key(last)]
            mine = [one.letter_id for one in known if one.scope_id == scope]
            count += sum(one is not None for one in await self.replay(partition, *mine))
            if len(known) < len(letters):
                break
        return count

    async def drop(self, partition: int, *letter_ids: str) -> int:
        """Delete letters for good; returns how many there were."""
        opened = await self._open()
        if not letter_ids:
            return 0
        keys = self._session.keys
        return await broker.drop_letters(opened.link, keys, Partition(partition), letter_ids)

    async def held(
        self, partition: int, *, after: str = ORIGIN, count: int = MOST_HELD
    ) -> list[DeadLetter]:
        """Messages that failed too often and hold their scopes (``on_dead_letter = "hold"``).

        Up to ``count`` (at most 1,000) of a partition behind an entry id, oldest first.
        """
        opened = await self._open()
        return await broker.read_held(
            opened.link,
            self._session.keys,
            Partition(partition),
            after=after,
            count=max(1, min(count, MOST_HELD)),
        )

    async def get_held(self, partition: int, entry_id: str) -> DeadLetter | None:
        """One held message, None if that one is not held."""
        opened = await self._open()
        return await broker.get_held(
            opened.link, self._session.keys, Partition(partition), entry_id
        )

    async def retry_held(self, partition: int, entry_id: str) -> bool:
        """Let a held message be tried again, as if it were new; False if it is not held."""
        return await self._release(partition, entry_id, drops=False)

    async def drop_held(self, partition: int, entry_id: str) -> bool:
        """Delete a held message for good, and let its scope go on; False if it is not held."""
        return await self._release(partition, entry_id, drops=True)

    async def _release(self, partition: int, entry_id: str, *, drops: bool) -> bool:
        opened = await self._open()
        return await broker.release_held(
            opened.link,
            opened.scripts.unhold,
            self._session.keys,
            Partition(partition),
            entry_id,
            drops=drops,
        )

    async def _open(self) -> Opened:
        return await self._session.enter().opened()
