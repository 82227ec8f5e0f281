"""Dead letters for code without an event loop: the same as `DeadLetters`, blocking."""

from __future__ import annotations

from collections.abc import Callable

from ..model import ORIGIN, DeadLetter, EntryId
from .background import Background
from .deadletters import MOST_HELD, PAGE


class SyncDeadLetters:
    """`SyncClient.dead_letters`; see `DeadLetters` for what the methods do."""

    __slots__ = ("_open",)

    def __init__(self, open_: Callable[[], Background]) -> None:
        """Share a client's thread."""
        self._open = open_

    def partitions(self) -> range:
        """All partitions of the namespace."""
        return self._open().run(lambda client: client.dead_letters.partitions())

    def unix_ms(self) -> int:
        """Redis' clock, by which letters die."""
        return self._open().run(lambda client: client.dead_letters.unix_ms())

    def page(self, partition: int, *, after: str = ORIGIN, count: int = PAGE) -> list[DeadLetter]:
        """Letters of a partition behind an id, oldest first."""
        return self._open().run(
            lambda client: client.dead_letters.page(partition, after=after, count=count)
        )

    def get(self, partition: int, letter_id: str) -> DeadLetter | None:
        """One letter."""
        return self._open().run(lambda client: client.dead_letters.get(partition, letter_id))

    def replay(self, partition: int, *letter_ids: str) -> list[EntryId | None]:
        """Send letters again, in the order given."""
        return self._open().run(lambda client: client.dead_letters.replay(partition, *letter_ids))

    def replay_scope(self, scope_id: str) -> int:
        """Send all letters of a scope again."""
        return self._open().run(lambda client: client.dead_letters.replay_scope(scope_id))

    def drop(self, partition: int, *letter_ids: str) -> int:
        """Delete letters for good."""
        return self._open().run(lambda client: client.dead_letters.drop(partition, *letter_ids))

    def held(
        self, partition: int, *, after: str = ORIGIN, count: int = MOST_HELD
    ) -> list[DeadLetter]:
        """Messages that hold their scopes, behind an entry id, oldest first."""
        return self._open().run(
            lambda client: client.dead_letters.held(partition, after=after, count=count)
        )

    def get_held(self, partition: int, entry_id: str) -> DeadLetter | None:
        """One held message."""
        return self._open().run(lambda client: client.dead_letters.get_held(partition, entry_id))

    def retry_held(self, partition: int, entry_id: str) -> bool:
        """Let a held message be tried again."""
        return self._open().run(lambda client: client.dead_letters.retry_held(partition, entry_id))

    def drop_held(self, partition: int, entry_id: str) -> bool:
        """Delete a held message for good."""
        return self._open().run(lambda client: client.dead_letters.drop_held(partition, entry_id))
