"""Committer: carries operations to Redis, in order, one call per partition at a time.

The order of effects in a scope is the order in which operations were put in: a partition has one
call in flight, which is sent again until it is answered. Calls of one tick share a write, and a
command where one server has all partitions: a command costs as much as several operations. In a
cluster each node has a way of its own, and one that is away holds up no other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..broker.calls import (
    MAX_OPERATIONS,
    Retention,
    are_all_done,
    encode_calls,
    part_answers,
    read_answers,
)
from ..broker.commits import (
    ANSWER_BYTES,
    LARGE_BYTES,
    MOST_ARGUMENTS,
    Answers,
    Emit,
    Further,
    Operation,
    Outcome,
    StateChange,
    each_of,
)
from ..broker.link import Link
from ..broker.redirects import is_try_again
from ..broker.scripts import Script, run_many
from ..broker.wire import Keys
from ..errors import StoreRefused, StoreUnavailable, WherryError
from ..hooks import Hooks
from ..model import EntryId, Partition, ScopeId
from .holding import Holding, Track
from .meter import Meter
from .outage import Outage
from .queues import Flight, Queue, Way, load_groups
from .results import Desk, results_of

BETWEEN_S = 0.02
"""A partition whose slot is between two nodes of a cluster is tried again after so long."""
QUEUE_LIMIT = 4_000
QUEUE_LIMIT_BYTES = 4 * 2**20


class Committer:
    """All queues of one worker on one link.

    Attributes:
        meter: measures calls, None if nobody listens.
    """

    def __init__(
        self,
        link: Link,
        script: Script,
        keys: Keys,
        retention: Retention,
        hooks: Hooks,
        desk: Desk,
        node_of: Callable[[Partition], str] | None = None,
    ) -> None:
        """Carry operations.

        Args:
            link: connection of its own.
            script: ``commit.lua``.
            keys: of the namespace.
            retention: of what is written.
            hooks: reports.
            desk: gets the answers.
            node_of: names the node to which the calls of a partition go now; None: there is one.
        """
        self.meter: Meter | None = None
        self._link = link
        self._script = script
        self._keys = keys
        self._retention = retention
        self._young_s = retention.young_s
        self._hooks = hooks
        self._desk = desk
        self._queues: dict[Holding, Queue] = {}
        self._node_of = node_of
        self._ways: dict[str, Way] = {}
        self._has_new = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether no answer is on its way, nor anything about to be sent."""
        return not any(way.ready or way.is_sending for way in self._ways.values())

    def answer(
        self, track: Track, entry_id: EntryId, reply: bytes, state: StateChange | None = None
    ) -> None:
        """Queue an `Answer`, whose state is changed if there is one; see `Answers`."""
        holding = track.holding
        if holding.is_lost:
            return
        queue = self._queues.get(holding) or self._queue_of(holding)
        run, size_bytes, packed = queue.growing.get(track), len(reply), None
        if state is not None:
            packed = state.packed or b""
            size_bytes += len(packed)
        is_large = size_bytes > LARGE_BYTES
        if (
            run is not None
            and not is_large
            and len(run.arguments) < MOST_ARGUMENTS
            and (run.is_before(state) if state is not None else not run.has_states)
        ):
            run.add(entry_id, reply, packed, size_bytes)
        else:
            given: list[str | bytes] = [entry_id, reply]
            run = Answers(track.scope_id, False, "", [entry_id], given, ANSWER_BYTES + size_bytes)
            if state is not None and packed is not None:
                given.append(packed)
                run.has_states, run.expected = True, state.expected
            if is_large:
                queue.growing.pop(track, None)
            else:
                queue.growing[track] = run
            queue.waiting.append((run, track))
            if queue.way is None and queue.flight is None:
                self._make_ready(queue)
        track.outstanding += 1

    def put(self, track: Track, operation: Further) -> None:
        """Queue an operation behind the others of its scope."""
        if track.holding.is_lost:
            return
        queue = self._queue_of(track.holding)
        queue.waiting.append((operation, track))
        queue.growing.pop(track, None)
        queue.waiting_bytes += operation.size_bytes
        track.outstanding += 1
        if queue.flight is None:
            self._make_ready(queue)

    def _make_ready(self, queue: Queue) -> None:
        """Let a queue be sent soon, unless its partition is lost."""
        holding = queue.holding
        if holding.is_lost or queue.way is not None:
            return
        name = "" if self._node_of is None else self._node_of(holding.partition)
        way = self._ways.get(name)
        if way is None:
            way = self._ways[name] = Way()
            self._has_new.set()
        queue.way = way
        if not way.ready:
            way.work.set()
        way.ready[holding] = queue

    def _queue_of(self, holding: Holding) -> Queue:
        queue = self._queues.get(holding)
        if queue is None:
            self._queues = {one: queue for one, queue in self._queues.items() if not one.is_lost}
            queue = self._queues[holding] = Queue(holding)
        return queue

    def withdraw(self, holding: Holding, scope_id: ScopeId) -> list[Operation]:
        """Take back what is queued for a scope and not sent yet."""
        queue = self._queues.get(holding)
        if queue is None:
            return []
        taken = [one for one in queue.waiting if one[0].scope_id == scope_id]
        if taken:
            queue.waiting = deque(one for one in queue.waiting if one[0].scope_id != scope_id)
        operations: list[Operation] = []
        for step, track in taken:
            queue.growing.pop(track, None)
            if not isinstance(step, Answers):
                queue.waiting_bytes -= step.size_bytes
            for operation in each_of(step):
                operations.append(operation)
                track.acknowledge()
        return operations

    def discard(self, holding: Holding) -> None:
        """Forget everything of a lost partition."""
        queue = self._queues.pop(holding, None)
        if queue is not None:
            if queue.way is not None:
                queue.way.ready.pop(holding, None)
            queue.wake()

    async def flush(self, holding: Holding) -> None:
        """Wait until everything of a partition is acknowledged, or it is lost."""
        while not holding.is_lost:
            queue = self._queues.get(holding)
            if queue is None or queue.is_empty:
                return
            await self._wait(queue)

    async def answered(self, within_s: float) -> None:
        """Wait for the answer to what is under way, if anything is, and at most so long.

        What is ready then is sent when the caller has had its turn.
        """
        for way in self._ways.values():
            if way.is_sending:
                await way.answered(within_s)
                return

    async def wait_room(self, holding: Holding) -> None:
        """Wait until a partition's queue is below its bound."""
        while not holding.is_lost:
            queue = self._queues.get(holding)
            if queue is None or (
                len(queue.waiting) < QUEUE_LIMIT and queue.waiting_bytes < QUEUE_LIMIT_BYTES
            ):
                return
            await self._wait(queue)

    async def _wait(self, queue: Queue) -> None:
        waiter = asyncio.get_running_loop().create_future()
        queue.flushed.append(waiter)
        await waiter

    async def run(self) -> None:
        """Send what is queued, for ever; raises as `Outage.wait` does, perhaps in a group."""
        running: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._has_new.clear()
                for name in self._ways.keys() - running:
                    tasks.create_task(self._run(self._ways[name]), name=f"committer:{name}")
                    running.add(name)
                await self._has_new.wait()

    async def _run(self, way: Way) -> None:
        outage = Outage("committing", self._hooks)
        while True:
            await way.work.wait()
            way.work.clear()
            queues, way.ready = list(way.ready.values()), {}
            for queue in queues:
                queue.way = None
            way.is_sending = True
            try:
                await self._send([queue for queue in queues if not queue.holding.is_lost])
                outage.over()
            except (StoreUnavailable, StoreRefused) as error:
                self._again(queues)
                await outage.wait(error)
            finally:
                way.is_sending = False
            await way.give_way()

    def _again(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            if queue.flight is not None and not queue.is_aside:
                queue.flight.begin_anew()
                self._make_ready(queue)

    def _set_aside(self, flight: Flight) -> None:
        """Try a partition again whose slot is on its way; the others need not wait for it."""
        flight.begin_anew()
        flight.queue.is_aside = True
        asyncio.get_running_loop().call_later(BETWEEN_S, self._resume, flight.queue)

    def _resume(self, queue: Queue) -> None:
        queue.is_aside = False
        self._make_ready(queue)

    async def _send(self, queues: Sequence[Queue]) -> None:
        most = MAX_OPERATIONS if self._link.joins_slots else 0
        groups = load_groups(queues, most, asyncio.get_running_loop().time())
        if not groups:
            return
        script, keys, retention = self._script, self._keys, self._retention
        sent_at_s = time.monotonic()
        answers = await run_many(
            self._link, [(script, encode_calls(script, keys, group, retention)) for group in groups]
        )
        if self.meter is not None:
            sizes = [flight.count for group in groups for flight in group]
            self.meter.answered(sent_at_s, sizes)
        refusal: StoreUnavailable | StoreRefused | None = None
        for group, answer in zip(groups, answers, strict=True):
            if are_all_done(answer, sum([flight.count for flight in group])):
                self._done(group)
                continue
            for flight, part in zip(group, part_answers(answer, group), strict=True):
                if is_try_again(part):
                    self._set_aside(flight)
                elif isinstance(part, StoreUnavailable | StoreRefused):
                    refusal = part
                else:
                    self._answer(flight, part)
        if refusal is not None:
            # What was answered has nothing in flight any more; the others are sent again.
            raise refusal

    def _done(self, group: Sequence[Flight]) -> None:
        """Everything of these took effect."""
        for flight in group:
            queue = flight.queue
            queue.flight = None
            if flight.aging is None or flight.aging:
                flight.note_age(self._young_s)
            if queue.holding.emits > queue.emitted:
                queue.note_emits(flight)
            if queue.waiting:
                self._make_ready(queue)
            if queue.flushed:
                queue.wake()
        self._desk.settle_done(group)

    def _answer(self, flight: Flight, answer: object) -> None:
        if are_all_done(answer, flight.count):
            self._done([flight])
            return
        queue = flight.queue
        queue.flight = None
        self._settle(queue, flight, answer)
        if queue.waiting:
            self._make_ready(queue)
        queue.wake()

    def _settle(self, queue: Queue, flight: Flight, answer: object) -> None:
        holding = queue.holding
        if isinstance(answer, WherryError):
            self._hooks.warn(
                "a partition cannot be written and is given up",
                partition=holding.partition,
                reason=str(answer),
            )
            answers = None
        else:
            answers = read_answers(answer)
        if answers is None:
            self._desk.settle(holding, None)
            return
        results = results_of(flight, answers)
        for one in results:
            if isinstance(one.operation, Emit) and one.outcome in (Outcome.DONE, Outcome.ALREADY):
                queue.emitted = one.operation.number
        self._desk.settle(holding, results)
