"""Lane: the place of one scope in the process: its inbox and the instance that works on it.

A lane is what ``application_instances[scope_id]`` holds. Its task calls the application, and
again as long as messages wait when it returns. There is one lane for a scope at a time, and
its task first waits for the end of those before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Protocol

from ..errors import WherryError
from ..model import Message
from .delivery import Delivery
from .inbox import Inbox, Item
from .instance import NOTHING, Instance
from .life import TRANSITIONS, LaneState
from .standing import Standing

OPEN = LaneState.OPEN

Outlet = Callable[["Lane", Message], Awaitable[None] | None]
"""Takes what a lane's instance sends; what it returns is to be awaited before the next."""


class Rules(Protocol):
    """What becomes of the messages of a lane; see `wherry.runtime.policy.Policy`.

    Attributes:
        outlet: takes what instances send, or None where `Host.pass_on` does.
    """

    outlet: Outlet | None

    def begin(self, lane: Lane, item: Item) -> Any:
        """Start on what waits first in the lane's inbox; returns its message.

        `NOTHING` if the lane may not start now; then it is woken or ended later. What has expired
        is removed before.
        """
        ...

    def finish(self, lane: Lane, delivery: Delivery) -> None:
        """A delivery is finished."""
        ...

    def idled(self, lane: Lane) -> None:
        """A lane that had begun is no longer busy."""
        ...


class Host(Protocol):
    """Decides for a lane; see `wherry.runtime.pool.Pool`."""

    @property
    def policy(self) -> Rules:
        """What becomes of messages."""
        ...

    async def admit(self, lane: Lane) -> None:
        """Return when the lane may start: those before it have ended and there is room."""
        ...

    def leave(self, lane: Lane) -> None:
        """The lane will not call the application any more: its room is free."""
        ...

    async def prepare(self, lane: Lane) -> Instance:
        """A new instance, with a fresh scope."""
        ...

    def call(self, instance: Instance) -> Awaitable[None]:
        """Call the application."""
        ...

    def rest(self, lane: Lane) -> None:
        """The lane has nothing to do."""
        ...

    def done(self, lane: Lane) -> None:
        """The lane's task is done."""
        ...

    def fail(self, lane: Lane, error: Exception) -> None:
        """What the lane's instance is at has failed; the instance is to end."""
        ...

    def returned(self, lane: Lane, instance: Instance) -> None:
        """The application returned."""
        ...

    def raised(self, lane: Lane, instance: Instance, error: BaseException) -> None:
        """The application raised, or was cancelled."""
        ...

    def queued(self, lane: Lane) -> None:
        """Something was put into the lane's inbox, which was empty."""
        ...

    def used(self, lane: Lane) -> None:
        """User code set ``last_used``."""
        ...

    def pass_on(self, scope: Any, message: Message) -> Awaitable[None]:
        """Hand a sent message to the server."""
        ...

    def second_receive(self) -> None:
        """An application called ``receive()`` twice at a time."""
        ...


class Lane(Standing):
    """One scope in the process.

    Attributes:
        scope_id: whose.
        scope: what the application is, or will be, called with.
        input_queue: its inbox.
        future: the task that calls the application; cancelling it ends the lane.
        state: of its life.
        instance: the application call that runs, or ran last, if any.
        is_busy: it is handling a message.
        tracking: what the worker remembers of the scope; None outside a worker.
    """

    __slots__ = (
        "_host",
        "future",
        "input_queue",
        "instance",
        "is_busy",
        "scope",
        "scope_id",
        "state",
        "tracking",
    )

    def __init__(self, host: Host, scope_id: Any, scope: Any, now_s: float) -> None:
        """Make a lane; the pool starts its task."""
        super().__init__(now_s)
        self._host = host
        self.scope_id = scope_id
        self.scope = scope
        self.input_queue = Inbox(self)
        self.future: asyncio.Future[None]
        self.state = LaneState.OPEN
        self.instance: Instance | None = None
        self.is_busy = False
        self.tracking: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it takes messages."""
        return self.state is OPEN

    @property
    def has_deliveries(self) -> bool:
        """Whether an entry waits in it or is being handled."""
        return self.input_queue.has_deliveries or bool(self.instance and self.instance.unfinished)

    def is_called_with(self, scope: Any) -> bool:
        """Whether its instance was called with this very scope."""
        return self.instance is not None and self.instance.scope is scope

    def move(self, state: LaneState) -> None:
        """Change the state; the one place where it changes.

        Raises:
            ValueError: a step that `TRANSITIONS` does not have; nothing is changed.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"lane {self.scope_id!r} cannot go from {self.state} to {state}")
        self.state = state

    def start(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        """Start the lane's task; its end is told in ``context``, which spares a copy for each."""
        self.future = loop.create_task(self.run(), name=f"instance:{self.scope_id}")
        self.future.add_done_callback(self._done, context=context)

    def _done(self, _: object) -> None:
        self._host.done(self)

    async def run(self) -> None:
        """Call the application as long as messages wait; the body of ``future``.

        Raises:
            Exception: what the last call of the application raised.
        """
        await self._host.admit(self)
        failure: Exception | None = None
        try:
            while self.is_open:
                instance = await self._prepare()
                failure = None
                try:
                    # One frame for all that is between this task and the application: there are
                    # as many as there are idle instances.
                    await self._host.call(instance)
                except asyncio.CancelledError as error:
                    self._raised(instance, error)
                    raise
                except Exception as error:  # noqa: BLE001 - the border to the application
                    self._raised(instance, error)
                    failure = error
                else:
                    self._returned(instance)
                if not self.input_queue:
                    break
                await asyncio.sleep(0)  # one that sends to itself shall not stop the loop
        finally:
            self._host.leave(self)
        if self.state is not LaneState.ENDED:
            self.move(LaneState.ENDED)
        if failure is not None:
            raise failure

    async def _prepare(self) -> Instance:
        try:
            self.instance = await self._host.prepare(self)
        except Exception as error:  # noqa: BLE001 - or the lane would end without a word
            self.instance = Instance(self, self.scope, refusal=error)
        return self.instance

    def _raised(self, instance: Instance, error: BaseException) -> None:
        self._close(instance)
        self._host.raised(self, instance, instance.failure or error)

    def _returned(self, instance: Instance) -> None:
        was_cut_off = instance.is_closed
        self._close(instance)
        if was_cut_off:
            # It swallowed its cancellation: what it was at is not finished all the same.
            self._host.raised(self, instance, instance.failure or asyncio.CancelledError())
        else:
            self._host.returned(self, instance)

    def _close(self, instance: Instance) -> None:
        instance.close()
        if self.is_busy:
            self._idle()

    def _idle(self) -> None:
        self.is_busy = False
        self._host.policy.idled(self)

    def take(self, instance: Instance) -> Any:
        """See `wherry.runtime.instance.Post`."""
        inbox = self.input_queue
        if not inbox.items or self.state is not OPEN:
            return NOTHING
        try:
            message = self._host.policy.begin(self, inbox.items[0])
        except Exception:
            # It was begun on, and its attempt fails with what was raised.
            if type(item := inbox.items.popleft()) is Delivery:
                instance.unfinished += (item,)
            raise
        if message is NOTHING:
            return NOTHING
        self.is_busy = True
        inbox.passes = 0
        item = inbox.items.popleft()
        if instance.waiters and inbox.items:
            instance.wake()
        if type(item) is Delivery:
            instance.unfinished += (item,)
        return message

    def rest(self, instance: Instance) -> None:
        """See `wherry.runtime.instance.Post`."""
        if not instance.unfinished:
            if self.is_busy:
                self._idle()
            self._host.rest(self)

    def stir(self, instance: Instance) -> None:
        """See `wherry.runtime.instance.Post`."""
        self.is_idle = False

    def finish_all(self, instance: Instance) -> None:
        """See `wherry.runtime.instance.Post`."""
        policy, unfinished = self._host.policy, instance.unfinished
        while len(unfinished) > 1:
            # What cannot be finished stays: its attempt fails.
            policy.finish(self, unfinished[0])
            unfinished = instance.unfinished = unfinished[1:]
        if unfinished:
            policy.finish(self, unfinished[0])
            instance.unfinished = ()

    def finish(self, instance: Instance, delivery: Delivery) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.policy.finish(self, delivery)

    def fail(self, instance: Instance, error: WherryError) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.fail(self, error)

    def pass_on(self, instance: Instance, message: Message) -> Awaitable[None] | None:
        """See `wherry.runtime.instance.Post`."""
        outlet = self._host.policy.outlet
        if outlet is not None and instance is self.instance:
            return outlet(self, message)
        return self._host.pass_on(instance.scope, message)

    def second_receive(self) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.second_receive()

    def wake(self) -> None:
        """Something was put into the inbox."""
        if len(self.input_queue.items) == 1:
            self._host.queued(self)
        instance = self.instance
        if instance is not None and instance.waiters:
            instance.wake()

    def replace(self, key: str, value: Any) -> None:
        """See `wherry.runtime.record.Record`; ``last_used`` decides who is ended first."""
        if key == "last_used":
            self.last_used = value
            self._host.used(self)
        elif key == "scope":
            self.scope = value
        else:
            raise TypeError(f"{key} of an application instance cannot be replaced")

    def __repr__(self) -> str:
        """Whose lane it is."""
        return f"<Lane of scope {self.scope_id!r}, {self.state.value}>"
