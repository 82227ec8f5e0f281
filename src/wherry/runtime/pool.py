"""Pool: all lanes of a process; makes room, ends the idle, and never ends the busy.

At most ``max_applications`` application calls run at a time. A lane that is to end counts until
its task is done or given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from ..hooks import Hooks
from ..model import Message
from .calling import Caller
from .endings import Endings
from .face import Face
from .failures import Failures
from .farewell import Farewell
from .idle import Idle
from .instance import Instance
from .lane import OPEN, Lane
from .leaving import Leaving
from .leftovers import Leftovers
from .life import LaneState
from .policy import Policy
from .room import Room


class Pool:
    """Lanes by scope id; implements `wherry.runtime.lane.Host`.

    Attributes:
        lanes: every scope's lane that takes messages.
        failures: errors of applications.
        policy: what becomes of messages.
    """

    def __init__(
        self,
        face: Face,
        policy: Policy,
        hooks: Hooks,
        end_timeout_s: float,
        farewell: Farewell | None = None,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Serve one server; ``unix_s`` is the clock of ``last_used``."""
        self.lanes: dict[Any, Lane] = {}
        self.failures = Failures(hooks)
        self._face = face
        self.policy = policy
        self._hooks = hooks
        self._endings = Endings(policy, self.failures)
        self._idle = Idle()
        self._leaving = Leaving(end_timeout_s, farewell or Farewell(), self._abandon)
        self._room = Room(self._most)
        self._unix_s = unix_s
        self._leftovers = Leftovers(face, hooks)
        self._caller = Caller()

    @property
    def end_timeout_s(self) -> float:
        """How long a cancelled lane may take to end before it is abandoned; 0: for ever."""
        return self._leaving.end_timeout_s

    def _most(self) -> int:
        return max(1, self._face.max_applications)  # with none, everything would wait for ever

    @property
    def is_full(self) -> bool:
        """Whether lanes wait for room."""
        return bool(self._room.waiting) or len(self.lanes) > self._most()

    @property
    def leaving(self) -> list[Lane]:
        """Lanes that are ending, and those that were abandoned."""
        return self._leaving.all()

    def get_or_create(self, scope_id: Any, scope: Any) -> Lane:
        """The lane of a scope; a new one starts its task at once.

        With as many lanes as allowed the least recently used idle one is ended; when all are
        busy the new lane waits for room.
        """
        lane = self.lanes.get(scope_id)
        if lane is not None:
            self._idle.ask_for(lane, self._unix_s())
            return lane
        loop, now_s = asyncio.get_running_loop(), self._unix_s()
        lane = Lane(self, scope_id, scope, now_s)
        while len(self.lanes) >= self._most() and self._evict():
            pass
        self.lanes[scope_id] = lane
        self._idle.add(lane, now_s)
        self.policy.created(lane)
        lane.start(loop, self._endings.context())
        return lane

    def find(self, scope_id: Any, scope: Any) -> Lane | None:
        """The lane whose instance was called with a scope; also one that is ending."""
        current = self.lanes.get(scope_id)
        if current is not None and current.is_called_with(scope):
            return current
        candidates = [*([current] if current else ()), *self._leaving.of(scope_id)]
        named = (lane for lane in candidates if lane.is_called_with(scope))
        called = (lane for lane in candidates if lane.instance is not None)
        return next(named, None) or next(called, None)

    def used(self, lane: Lane) -> None:
        """See `wherry.runtime.lane.Host`."""
        if lane.is_open:
            self._idle.set_by_hand(lane)

    def oldest(self) -> Lane | None:
        """The least recently used idle lane."""
        return self._idle.oldest()

    def end_oldest(self) -> bool:
        """End the least recently used idle lane; False if none is idle."""
        if (lane := self._idle.oldest()) is not None:
            self.end(lane)
        return lane is not None

    def _evict(self) -> bool:
        """End an idle lane the way user code may have overridden; False if none is idle."""
        if self._idle.oldest() is None:
            return False
        count = len(self.lanes)
        try:
            self._face.delete_oldest_application_instance()
        except Exception as error:  # noqa: BLE001 - user code's, and whoever needs room is another
            self._hooks.failed("delete_oldest_application_instance() raised", error)
        is_ended = len(self.lanes) < count or self.end_oldest()
        if is_ended:
            self.policy.evicted()
        return is_ended

    def end(self, lane: Lane, *, at_once: bool = True) -> None:
        """End a lane: cancel it now, or when it has handled its message.

        What is put into its inbox from now on goes to its successor, after what waits there.
        """
        if lane.state is LaneState.ENDED:
            return
        if lane.is_open:
            lane.move(LaneState.ENDING)
            self._retire(lane)
        if at_once or not lane.is_busy:
            self._cancel(lane)

    def _retire(self, lane: Lane) -> None:
        """A lane takes no more messages.

        Those of its scope go to its successor, which waits for its end and then gets what it left,
        ahead of them.
        """
        self._idle.forget(lane)
        if not self._leaving.add(lane):
            return
        if self.lanes.get(lane.scope_id) is lane:
            del self.lanes[lane.scope_id]
        self._leftovers.forward(lane)

    def fail(self, lane: Lane, error: Exception) -> None:
        """What a lane's instance is at has failed; the instance is ended."""
        if lane.instance is not None:
            self._endings.fail(lane, lane.instance, error)
        self.failures.add(error, lane)
        self.end(lane)

    def end_idle(self, longer_than_s: float) -> None:
        """End the lanes that have been idle for longer."""
        until_s = self._unix_s() - longer_than_s
        while (lane := self._idle.oldest()) is not None and lane.last_used < until_s:
            self.end(lane)

    def _cancel(self, lane: Lane) -> None:
        if not self._leaving.farewell.say(lane, self._cut):
            self._cut(lane)

    def _cut(self, lane: Lane) -> None:
        if lane.future.done():
            return
        if lane.instance is not None:
            lane.instance.is_closed = True
        lane.future.cancel()
        self._leaving.expect(lane)

    def _abandon(self, lane: Lane) -> None:
        if lane.state is LaneState.ENDING:
            lane.move(LaneState.ABANDONED)
            self._hooks.warn(
                "an application does not end when it is cancelled; its scope waits for it",
                scope=str(lane.scope_id),
                duration_s=self.end_timeout_s,
            )
            self.policy.abandoned(lane)
            self._room.leave(lane)
            self._make_room()

    def done(self, lane: Lane) -> None:
        """See `wherry.runtime.lane.Host`."""
        # An error is told through `failures`, and asyncio need not tell it again.
        with suppress(asyncio.CancelledError):
            lane.future.exception()
        if lane.state is not LaneState.ENDED:
            lane.move(LaneState.ENDED)
        self._retire(lane)
        successor = self._leaving.remove(lane) or self.lanes.get(lane.scope_id)
        self._room.leave(lane)
        self.policy.ended(lane)
        if lane.input_queue:
            self._hand_over(lane, successor)
        lane.instance = None  # no cycle holds what has ended: it is freed without a collection
        self._make_room()

    def _hand_over(self, lane: Lane, successor: Lane | None) -> None:
        """What waits in a lane that is done goes to the scope's next one."""
        if successor is not None:
            # It waits for the end of this lane and has taken nothing.
            successor.is_idle = False
            successor.input_queue.inherit(lane.input_queue)
            return
        passes = lane.input_queue.passes
        self._leftovers.hand_over(lane)
        if lane.scope_id in self.lanes:
            self.lanes[lane.scope_id].input_queue.passes = passes

    def make_room(self) -> None:
        """``max_applications`` was changed, in whatever thread."""
        self._room.call_soon(self._make_room)

    def _make_room(self) -> None:
        while self._room.waiting:
            if not self._room.let_in() and (len(self.lanes) <= self._most() or not self._evict()):
                return

    async def admit(self, lane: Lane) -> None:
        """See `wherry.runtime.lane.Host`."""
        while before := self._leaving.of(lane.scope_id):
            await asyncio.wait([one.future for one in before])
        if not self._room.enter(lane):
            room = self._room.wait(lane)
            self._make_room()
            await room

    def leave(self, lane: Lane) -> None:
        """See `wherry.runtime.lane.Host`."""
        # Now, and not when the task is done: nobody shall find it and tell its error once more.
        self._room.leave(lane)
        self._retire(lane)

    async def prepare(self, lane: Lane) -> Instance:
        """See `wherry.runtime.lane.Host`."""
        lane.is_idle = False
        return await self.policy.prepare(lane)

    def call(self, instance: Instance) -> Awaitable[None]:
        """See `wherry.runtime.lane.Host`."""
        if instance.refusal is not None:
            raise instance.refusal
        return self._caller.call(self._face.application, instance)

    def queued(self, lane: Lane) -> None:
        """See `wherry.runtime.lane.Host`."""
        self._idle.use(lane, self._unix_s())

    def rest(self, lane: Lane) -> None:
        """See `wherry.runtime.lane.Host`."""
        may_end = self.policy.rest(lane)
        if lane.state is not OPEN:
            if lane.state is LaneState.ENDING:
                self._cancel(lane)
        elif lane.input_queue.items:
            if not self.policy.fits(lane, lane.input_queue.peek()):
                self.end(lane)
        elif may_end:
            self._idle.add(lane, self._unix_s())
            lane.input_queue.shrink()
            if self._room.waiting:
                self._make_room()

    def returned(self, lane: Lane, instance: Instance) -> None:
        """See `wherry.runtime.lane.Host`."""
        self._caller.ended()
        self._endings.returned(lane, instance)

    def raised(self, lane: Lane, instance: Instance, error: BaseException) -> None:
        """See `wherry.runtime.lane.Host`."""
        self._caller.ended()
        self._endings.raised(lane, instance, error)

    async def pass_on(self, scope: Any, message: Message) -> None:
        """See `wherry.runtime.lane.Host`."""
        await self._face.application_send(scope, message)

    def second_receive(self) -> None:
        """See `wherry.runtime.lane.Host`."""
        self._hooks.warn_once(
            "an application calls receive() while another receive() is waiting; "
            "it waits its turn and finishes nothing"
        )

    async def end_all(self) -> None:
        """End all lanes and wait for them, at most the time that ending may take.

        What still waits in them is dropped.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.end_timeout_s if self.end_timeout_s > 0 else None
        self._leftovers.are_dropped = True
        try:
            # Applications may start others while they end.
            while True:
                for lane in list(self.lanes.values()):
                    self.end(lane)
                ending = [one for one in self.leaving if one.state is not LaneState.ABANDONED]
                pending = [one.future for one in (*self.lanes.values(), *ending)]
                left_s = None if until_s is None else until_s - loop.time()
                if not pending or (left_s is not None and left_s <= 0):
                    break
                await asyncio.wait(pending, timeout=left_s)
        finally:
            self._leftovers.are_dropped = False
        for lane in self.leaving:
            self._abandon(lane)
