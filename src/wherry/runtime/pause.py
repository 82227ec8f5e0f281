"""Pause: while a namespace is paused nothing begins in its workers.

What has begun is finished, and what was read before waits: its leases are kept, and instances
live on. No read is sent; what one that was under way still brings is dropped, unread as it were.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..hooks import Hooks
from .holding import Holdings
from .inbox import Item
from .lane import Lane
from .policy import Gate
from .pool import Pool
from .probing import is_marked


class Gated(Protocol):
    """Asks a gate before anything begins; see `wherry.runtime.tracked.Tracked`.

    Attributes:
        gate: which, or None: it stands open.
    """

    gate: Gate | None


class Pause:
    """Implements `wherry.runtime.policy.Gate`; stands before that of suspects.

    Attributes:
        since_unix_ms: since when, by the clock of whoever paused it; 0 if nobody did.
    """

    def __init__(self, gated: Gated, pool: Pool, holdings: Holdings, hooks: Hooks) -> None:
        """Be open; a run of a worker begins."""
        self.since_unix_ms = 0
        gated.gate = None
        self._gated = gated
        self._pool = pool
        self._holdings = holdings
        self._hooks = hooks
        self._behind: Gate | None = None
        self._resumed = asyncio.Event()

    @property
    def is_on(self) -> bool:
        """Whether the namespace is paused."""
        return self.since_unix_ms > 0

    def stand_before(self, gate: Gate | None) -> None:
        """Another gate is to be passed when nothing is paused; None: no other."""
        self._behind = gate
        if not self.is_on:
            self._gated.gate = gate

    def heed(self, since_unix_ms: int) -> bool:
        """Pause or go on; whether that is news."""
        is_news = (since_unix_ms > 0) != self.is_on
        self.since_unix_ms = since_unix_ms
        if is_news:
            if self.is_on:
                self._begin()
            else:
                self._end()
        return is_news

    def _begin(self) -> None:
        self._hooks.life("the namespace is paused")
        self._resumed.clear()
        self._gated.gate = self
        for holding in self._holdings.all():
            for suspect in holding.suspects.values():
                suspect.lane = None  # ready again when it may go on

    def _end(self) -> None:
        self._hooks.life("the namespace is no longer paused")
        self._gated.gate = self._behind
        self._resumed.set()
        for holding in self._holdings.all():
            for suspect in holding.suspects.values():
                suspect.turn.set()
                suspect.turn.clear()
        for lane in list(self._pool.lanes.values()):
            if lane.input_queue and lane.instance is not None and lane.instance.is_waiting():
                lane.wake()
        self._holdings.changed.set()

    def admits(self, lane: Lane, item: Item) -> bool:
        """None but the suspect whose probe has begun: its mark is written already."""
        behind = self._behind
        return behind is not None and is_marked(lane, item) and behind.admits(lane, item)

    async def enter(self, lane: Lane) -> None:
        """Return when a lane may call the application."""
        while self.is_on and not is_marked(lane, lane.input_queue.peek()):
            await self._resumed.wait()
        if self._behind is not None:
            await self._behind.enter(lane)

    def look(self) -> None:
        """Something has come to rest."""
        if self._behind is not None:
            self._behind.look()

    def ended(self, lane: Lane) -> None:
        """A lane's task is done."""
        if self._behind is not None:
            self._behind.ended(lane)
