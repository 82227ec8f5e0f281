"""Queues: what waits to be written, by partition, and by the node that is to write it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from ..broker.calls import MAX_BYTES, Call, split_point
from ..broker.commits import Answers, Emit, Step, weight_of
from ..model import ScopeId
from .holding import Holding, Track

Sent = tuple[Step, Track]
"""A step of a call and the track of its scope."""
_STEP: Callable[[Sent], Step] = itemgetter(0)


@dataclass(slots=True, eq=False)
class Way:
    """What goes to one node; nothing else waits while that is away.

    Attributes:
        ready: queues that are sent next.
        work: set when there are any.
        is_sending: an answer is on its way.
        waiter: of who waits for it, None if nobody does.
    """

    ready: dict[Holding, Queue] = field(default_factory=lambda: {})
    work: asyncio.Event = field(default_factory=asyncio.Event)
    is_sending: bool = False
    waiter: asyncio.Future[None] | None = None

    async def answered(self, within_s: float) -> None:
        """See `wherry.runtime.committer.Committer.answered`; one caller at a time."""
        loop = asyncio.get_running_loop()
        waiter = self.waiter = loop.create_future()
        timer = loop.call_later(within_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    async def give_way(self) -> None:
        """What was under way is settled: whoever waited for that has its turn."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # uvloop writes at the end of a turn


@dataclass(slots=True, eq=False, kw_only=True)
class Flight(Call):
    """A call that is under way, until it is answered.

    Attributes:
        queue: whose.
        sent: its steps, each with the track of its scope.
        count: how many operations they are.
        size_bytes: what they count for in a call.
    """

    queue: Queue
    sent: Sequence[Sent]
    count: int
    size_bytes: int

    def begin_anew(self) -> None:
        """It is to be sent again, and nobody knows how much later."""
        self.is_resent = True
        self.aging = None

    def note_age(self, young_s: float) -> None:
        """It took effect: the keys of the aging scopes are young again."""
        aging = self.aging
        until_s = asyncio.get_running_loop().time() + young_s
        for step, track in self.sent:
            if type(step) is Answers and (aging is None or track.scope_id in aging):
                track.young_until_s = until_s


@dataclass(slots=True, eq=False)
class Queue:
    """What waits to be written to one partition, one call after the other.

    Attributes:
        holding: the partition.
        way: where it is ready to be sent, None while it is not.
        waiting: what is not sent yet.
        waiting_bytes: its size, without answers. Those hold up nobody, and nobody waits to give
            them: there are no more than entries in hand.
        growing: answers among it to which more of their scope may be added.
        flight: what is under way, None if nothing is.
        is_aside: it waits for its slot to arrive at another node.
        has_failures: failed attempts were written down, by this owner or one before.
        emitted: number of the last emit that was acknowledged.
        flushed: who waits for the next answer.
    """

    holding: Holding
    way: Way | None = None
    waiting: deque[Sent] = field(default_factory=lambda: deque())
    waiting_bytes: int = 0
    growing: dict[Track, Answers] = field(default_factory=lambda: {})
    flight: Flight | None = None
    is_aside: bool = False
    has_failures: bool = False
    emitted: int = 0
    flushed: list[asyncio.Future[None]] = field(default_factory=lambda: [])

    @property
    def is_empty(self) -> bool:
        """Whether all is acknowledged."""
        return not self.waiting and self.flight is None

    def load(self, now_s: float) -> Flight | None:
        """What is under way, or what fits into one call of what waits; None if nothing does.

        ``now_s`` is an instant of the loop's clock.
        """
        waiting, ledger = self.waiting, self.holding.ledger
        if self.flight is not None or not waiting:
            return self.flight
        if len(waiting) == 1:
            sent = [waiting.popleft()]
            step, track = sent[0]
            steps: Sequence[Step] = (step,)
            count, size = weight_of(step)
            aging: Collection[ScopeId] = (track.scope_id,) if track.young_until_s <= now_s else ()
        else:
            fitting, count, size = split_point(map(_STEP, waiting))
            sent = [waiting.popleft() for _ in range(fitting)]
            steps = list(map(_STEP, sent))
            aging = {track.scope_id for _, track in sent if track.young_until_s <= now_s}
        self.growing.clear()
        if self.waiting_bytes:
            self.waiting_bytes -= sum(
                [one.size_bytes for one in steps if not isinstance(one, Answers)]
            )
        if self.holding.attempts:
            self.has_failures = True
        self.flight = Flight(
            ledger.partition,
            ledger.token,
            steps,
            emitted=self.emitted,
            has_failures=self.has_failures,
            aging=aging,
            queue=self,
            sent=sent,
            count=count,
            size_bytes=size,
        )
        return self.flight

    def note_emits(self, flight: Flight) -> None:
        """What was under way took effect."""
        for step, _ in flight.sent:
            if isinstance(step, Emit):
                self.emitted = step.number

    def wake(self) -> None:
        """Let those look who wait for an answer."""
        for waiter in self.flushed:
            _wake(waiter)
        self.flushed.clear()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def load_groups(queues: Iterable[Queue], most: int, now_s: float) -> list[list[Flight]]:
    """Load the queues; those together that go in one command, of ``most`` operations or one queue.

    Queues with nothing to send are left out. ``now_s`` is an instant of the loop's clock.
    """
    groups: list[list[Flight]] = []
    count = size = 0
    for queue in queues:
        flight = queue.load(now_s)
        if flight is None:
            continue
        count += flight.count
        size += flight.size_bytes
        if not groups or count > most or size > MAX_BYTES:
            groups.append([])
            count, size = flight.count, flight.size_bytes
        groups[-1].append(flight)
    return groups
