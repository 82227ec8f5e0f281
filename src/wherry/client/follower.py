"""Follower: one reader of one stream, and what a shared read has brought for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..broker.streams import RawEntry
from ..errors import WherryError

_QUEUE = 256
_QUEUE_BYTES = 2**20


@dataclass(slots=True, eq=False)
class Follower:
    """One reader of one stream.

    Attributes:
        key: the stream.
        queue: entries that the shared read brought.
        size_bytes: their size.
        since: id behind which the queue is complete; None before the stream is watched.
        is_lagging: the queue is not complete any more.
        error: why nothing more will come.
        wake: set when one of these changes.
    """

    key: str
    queue: deque[RawEntry] = field(default_factory=lambda: deque())
    size_bytes: int = 0
    since: str | None = None
    is_lagging: bool = False
    error: WherryError | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, entries: Sequence[RawEntry]) -> None:
        """Queue entries, or lag if there is no room."""
        for entry in entries:
            if len(self.queue) >= _QUEUE or self.size_bytes > _QUEUE_BYTES:
                self.lag()
            if self.is_lagging:
                return
            self.queue.append(entry)
            self.size_bytes += sum(map(len, entry[1]))
        self.wake.set()

    def take(self) -> RawEntry:
        """The oldest queued entry."""
        entry = self.queue.popleft()
        self.size_bytes -= sum(map(len, entry[1]))
        return entry

    def lag(self) -> None:
        """Give the queue up: the follower reads by itself."""
        self.is_lagging = True
        self.queue.clear()
        self.size_bytes = 0
        self.wake.set()
