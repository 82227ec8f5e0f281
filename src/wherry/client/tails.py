"""Tails: the newest ends of reply streams, in groups that share one connection.

A group only carries what is beyond doubt; whom it cannot serve so, it makes lag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ..broker.link import Command
from ..broker.streams import RawEntry
from ..errors import ClientClosed, StoreUnavailable, WherryError
from ..model import ORIGIN
from .follower import Follower
from .listening import STREAMS_PER_COMMAND, Listener
from .session import Session
from .watching import Watcher

STREAMS_PER_READ = 500
"""Of a blocking read, which costs as much as it has streams."""
STREAMS_PER_LISTENER = 10_000
_COUNT = 100


@dataclass(slots=True, eq=False)
class Tail:
    """The newest end of a stream that somebody follows.

    Attributes:
        key: the stream.
        group: whose read covers it.
        followers: those who get what comes.
    """

    key: str
    group: Group
    followers: dict[Follower, None] = field(default_factory=lambda: {})

    @property
    def cursor(self) -> str | None:
        """Last id seen; None before somebody has caught up."""
        return self.group.seen.get(self.key)

    def lag(self) -> None:
        """All who follow it are to read by themselves."""
        for follower in self.followers:
            follower.lag()

    def fail(self, error: WherryError) -> None:
        """It is not read any more."""
        self.group.seen.pop(self.key, None)
        for follower in self.followers:
            follower.error = error
            follower.wake.set()


class Group:
    """Streams that share one connection; the source of what reads them.

    Attributes:
        bundle: of all these streams; see `Session.bundle_of`.
        tails: stream -> its end.
        seen: stream -> last id seen, of those that are watched; kept ready for each read.
        reader: does the reading.
    """

    __slots__ = (
        "_deaf", "_doubted", "_name", "_partitions", "_session", "_unsure",
        "bundle", "reader", "seen", "tails",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        name: str,
        bundle: int,
        deaf: Callable[[Group], None] | None,
    ) -> None:
        """Listen, and call ``deaf`` if the server gives no notice; None: it is known not to."""
        self._session = session
        self.bundle = bundle
        self._name = name
        self._deaf = deaf
        self._partitions = session.known.partitions if session.known is not None else 0
        self.tails: dict[str, Tail] = {}
        self.seen: dict[str, str] = {}
        self._doubted: set[str] = set()  # streams not read since the connection was lost
        self._unsure: set[str] = set()  # of these, those that were not looked after
        self.reader: Listener | Watcher = (
            Listener(session, self, name=name, count=_COUNT) if deaf else self._watcher()
        )

    def _watcher(self) -> Watcher:
        return Watcher(self._session, self, name=self._name, count=_COUNT)

    @property
    def most(self) -> int:
        """How many streams it may have."""
        return STREAMS_PER_LISTENER if isinstance(self.reader, Listener) else STREAMS_PER_READ

    def begin(self, tail: Tail, after: str) -> None:
        """Read a stream from now on, behind an id."""
        self.seen[tail.key] = after
        if tail.key in self._doubted:
            self._unsure.add(tail.key)

    def forget(self, key: str) -> None:
        """Nobody follows this stream any more."""
        del self.tails[key]
        self.seen.pop(key, None)
        self._doubted.discard(key)
        self._unsure.discard(key)

    def adopt(self, tail: Tail) -> None:
        """Take over a stream of another group."""
        cursor = tail.cursor
        tail.group.forget(tail.key)
        tail.group = self
        self.tails[tail.key] = tail
        if cursor is not None:
            self.begin(tail, cursor)

    def cursors(self) -> Mapping[str, str]:
        """See `wherry.client.watching.Source`."""
        return self.seen

    def before(self) -> Sequence[Command]:
        """See `wherry.client.watching.Source`."""
        return ()

    def doubt(self) -> None:
        """See `wherry.client.watching.Source`."""
        self._doubted = set(self.tails)
        self._unsure = set(self.tails)

    def deaf(self) -> None:
        """See `wherry.client.listening.Source`."""
        self.reader = self._watcher()
        if self._deaf is not None:
            self._deaf(self)
        self.reader.changed()

    async def deliver(self, found: Mapping[str, list[RawEntry]]) -> None:
        """See `wherry.client.watching.Source`."""
        if await self._have_moved():
            for tail in self.tails.values():
                tail.lag()
        await self._look_after_doubt(found)
        gapless = await self._find_gapless(found)
        for key, entries in found.items():
            tail = self.tails.get(key)
            if tail is None or tail.cursor is None:
                continue
            self.seen[key] = entries[-1][0].decode()
            self._doubted.discard(key)
            self._unsure.discard(key)
            if key not in gapless:
                tail.lag()
                continue
            for follower in tail.followers:
                follower.put(entries)

    async def _have_moved(self) -> bool:
        """Whether there is another partition count now, so that streams have other keys."""
        try:
            now = (await self._session.current()).partitions
        except (StoreUnavailable, ClientClosed):
            return False
        except WherryError as error:
            for tail in self.tails.values():
                tail.fail(error)
            return False
        before, self._partitions = self._partitions, now
        return before != now

    async def _look_after_doubt(self, found: Mapping[str, list[RawEntry]]) -> None:
        """See whether a replica took over that does not know what was read last.

        Some streams at a time, those that were found before all others.
        """
        some = islice(self._unsure.difference(found), STREAMS_PER_COMMAND) if self._unsure else ()
        asked = [*self._unsure.intersection(found), *some]
        self._unsure.difference_update(asked)
        doubted = {key: self.seen[key] for key in asked if self.seen.get(key, ORIGIN) != ORIGIN}
        if not doubted:
            return
        opened = await self._session.opened()
        try:
            async with self._session.reads:
                answers = await opened.link.calls(
                    [("XRANGE", key, cursor, cursor) for key, cursor in doubted.items()]
                )
        except StoreUnavailable:
            self._unsure.update(doubted)
            return
        for (key, cursor), kept in zip(doubted.items(), answers, strict=True):
            self._doubted.discard(key)
            if (not kept or isinstance(kept, Exception)) and self.seen.get(key) == cursor:
                self.tails[key].lag()

    async def _find_gapless(self, found: Mapping[str, list[RawEntry]]) -> set[str]:
        """Streams where nothing can have been trimmed between the last read and this one.

        Trimming takes the oldest first. So nothing is missing if one that was seen before is
        still kept, or, as more than one is kept, if a single one came.
        """
        gapless: set[str] = set()
        asked: list[tuple[str, str]] = []
        for key, entries in found.items():
            tail = self.tails.get(key)
            if tail is None or tail.cursor is None:
                continue
            is_doubted = key in self._doubted
            if len(entries) == 1 and not is_doubted and self._session.config.reply_length > 1:
                gapless.add(key)
            elif tail.cursor != ORIGIN:
                asked.append((key, tail.cursor))
        if asked:
            opened = await self._session.opened()
            try:
                async with self._session.reads:
                    answers = await opened.link.calls(
                        [("XREVRANGE", key, cursor, "-", "COUNT", 1) for key, cursor in asked]
                    )
            except StoreUnavailable:
                return gapless
            for (key, _), kept in zip(asked, answers, strict=True):
                if isinstance(kept, list) and kept:
                    gapless.add(key)
        return gapless

    async def refused(self, error: WherryError) -> None:
        """See `wherry.client.watching.Source`."""
        opened = await self._session.opened()
        cursors = dict(self.seen)
        async with self._session.reads:
            answers = await opened.link.calls(
                [("XREAD", "COUNT", 1, "STREAMS", key, cursor) for key, cursor in cursors.items()]
            )
        guilty = {
            key: answer
            for key, answer in zip(cursors, answers, strict=True)
            if isinstance(answer, WherryError)
        }
        for key, reason in (guilty or dict.fromkeys(cursors, error)).items():
            tail = self.tails.get(key)
            if tail is not None:
                tail.fail(reason)
