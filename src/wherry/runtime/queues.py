"""Queues: what waits to be written, by partition, and by the node that is to write it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

from ..broker.calls import MAX_BYTES, MAX_OPERATIONS, Call, split_point
from ..broker.commits import Answer, Operation
from ..model import ScopeId
from .holding import Holding, Track

Sent = tuple[Operation, Track]
"""An operation and the track of its scope."""
_OPERATION: Callable[[Sent], Operation] = itemgetter(0)


@dataclass(slots=True, eq=False)
class Way:
    """What goes to one node; nothing else waits while that is away.

    Attributes:
        ready: queues that are sent next.
        work: set when there are any.
        is_sending: an answer is on its way.
    """

    ready: dict[Holding, Queue] = field(default_factory=lambda: {})
    work: asyncio.Event = field(default_factory=asyncio.Event)
    is_sending: bool = False


@dataclass(slots=True, eq=False)
class Queue:
    """What waits to be written to one partition, one call after the other.

    Attributes:
        holding: the partition.
        way: where it is ready to be sent, None while it is not.
        waiting: operations that are not sent yet.
        waiting_bytes: their size.
        in_flight: those of the call that is under way, until it is answered.
        in_flight_bytes: their size.
        is_resent: that call was sent before.
        is_aside: it waits for its slot to arrive at another node.
        aging: scopes of that call whose keys get a new time to live.
        has_failures: failed attempts were written down, by this owner or one before.
        emitted: number of the last emit that was acknowledged.
        flushed: who waits for the next answer.
    """

    holding: Holding
    way: Way | None = None
    waiting: deque[Sent] = field(default_factory=lambda: deque())
    waiting_bytes: int = 0
    in_flight: list[Sent] = field(default_factory=lambda: [])
    in_flight_bytes: int = 0
    is_resent: bool = False
    is_aside: bool = False
    aging: set[ScopeId] = field(default_factory=lambda: set())
    has_failures: bool = False
    emitted: int = 0
    flushed: list[asyncio.Future[None]] = field(default_factory=lambda: [])

    @property
    def is_empty(self) -> bool:
        """Whether all is acknowledged."""
        return not self.waiting and not self.in_flight

    def load(self) -> None:
        """Move what fits into one call from what waits into flight."""
        waiting = self.waiting
        if len(waiting) <= MAX_OPERATIONS and self.waiting_bytes <= MAX_BYTES:
            self.in_flight, self.in_flight_bytes = list(waiting), self.waiting_bytes
            waiting.clear()
            self.waiting_bytes = 0
            return
        count, size = split_point(map(_OPERATION, waiting))
        self.in_flight = [waiting.popleft() for _ in range(count)]
        self.in_flight_bytes = size
        self.waiting_bytes -= size

    def call(self) -> Call:
        """What is in flight, as it is sent."""
        ledger = self.holding.ledger
        if self.holding.attempts:
            self.has_failures = True
        now_s = asyncio.get_running_loop().time()
        self.aging = {track.scope_id for _, track in self.in_flight if track.young_until_s <= now_s}
        return Call(
            partition=ledger.partition,
            token=ledger.token,
            operations=list(map(_OPERATION, self.in_flight)),
            is_resent=self.is_resent,
            emitted=self.emitted,
            has_failures=self.has_failures,
            aging=self.aging,
        )

    def note_age(self, young_s: float) -> None:
        """What is in flight took effect: the keys of the aging scopes are young again."""
        until_s = asyncio.get_running_loop().time() + young_s
        for operation, track in self.in_flight:
            if type(operation) is Answer and track.scope_id in self.aging:
                track.young_until_s = until_s

    def wake(self) -> None:
        """Let those look who wait for an answer."""
        for waiter in self.flushed:
            if not waiter.done():
                waiter.set_result(None)
        self.flushed.clear()
