"""Lane: the place of one scope in the process: its inbox and the instance that works on it.

A lane is what ``application_instances[scope_id]`` holds. Its task calls the application, and
again as long as messages wait when it returns. There is one lane for a scope at a time, and
its task first waits for the end of those before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from enum import Enum
from typing import Any, Protocol

from ..errors import WherryError
from ..model import Message
from .delivery import Delivery
from .inbox import Inbox, Item
from .instance import Instance

_KEYS = ("input_queue", "future", "scope", "last_used")


class LaneState(Enum):
    """Life of a lane."""

    OPEN = "open"
    ENDING = "ending"
    ENDED = "ended"
    ABANDONED = "abandoned"


TRANSITIONS: dict[LaneState, frozenset[LaneState]] = {
    LaneState.OPEN: frozenset({LaneState.ENDING, LaneState.ENDED}),
    LaneState.ENDING: frozenset({LaneState.ENDED, LaneState.ABANDONED}),
    LaneState.ABANDONED: frozenset({LaneState.ENDED}),
    LaneState.ENDED: frozenset(),
}


class Host(Protocol):
    """Decides for a lane; see `wherry.runtime.pool.Pool`."""

    async def admit(self, lane: Lane) -> None:
        """Return when the lane may start: those before it have ended and there is room."""
        ...

    def leave(self, lane: Lane) -> None:
        """The lane will not call the application any more: its room is free."""
        ...

    async def prepare(self, lane: Lane) -> Instance:
        """A new instance, with a fresh scope."""
        ...

    async def call(self, instance: Instance) -> None:
        """Call the application."""
        ...

    def begin(self, lane: Lane, item: Item) -> bool:
        """Whether the lane may start on an item now; if not, it is woken or ended later."""
        ...

    def idled(self, lane: Lane) -> None:
        """The lane is no longer busy."""
        ...

    def rest(self, lane: Lane) -> None:
        """The lane has nothing to do."""
        ...

    def stir(self, lane: Lane) -> None:
        """The lane that had nothing to do is at work again, though it got nothing."""
        ...

    def open(self, lane: Lane, delivery: Delivery) -> Message:
        """The message of a delivery that is now being handled."""
        ...

    def finish(self, lane: Lane, delivery: Delivery) -> None:
        """A delivery is finished."""
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
        """Something was put into the lane's inbox."""
        ...

    def used(self, lane: Lane) -> None:
        """User code set ``last_used``."""
        ...

    def pass_on(self, scope: Any, message: Message) -> Any:
        """Hand a sent message to the server; awaitable."""
        ...

    def second_receive(self) -> None:
        """An application called ``receive()`` twice at a time."""
        ...


class Lane(MutableMapping[str, Any]):
    """One scope in the process.

    It is also the mapping that asgiref keeps for an instance, with the keys ``input_queue``,
    ``future``, ``scope`` and ``last_used`` and whatever user code adds: that is why it inherits
    the methods of one. It is equal to itself alone.

    Attributes:
        scope_id: whose.
        scope: what the application is, or will be, called with.
        input_queue: its inbox.
        future: the task that calls the application; cancelling it ends the lane.
        last_used: Unix time in seconds of the last use.
        state: of its life.
        instance: the application call that runs, or ran last, if any.
        is_busy: it is handling a message.
        tracking: what the worker remembers of the scope; None outside a worker.
    """

    __slots__ = (
        "_extras",
        "_host",
        "_last_used",
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
        self._extras: dict[str, Any] | None = None
        self._host = host
        self.scope_id = scope_id
        self.scope = scope
        self.input_queue = Inbox(self.wake)
        self.future: asyncio.Future[None]
        self._last_used = now_s
        self.state = LaneState.OPEN
        self.instance: Instance | None = None
        self.is_busy = False
        self.tracking: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it takes messages."""
        return self.state is LaneState.OPEN

    @property
    def has_deliveries(self) -> bool:
        """Whether an entry waits in it or is being handled."""
        return self.input_queue.has_deliveries or bool(self.instance and self.instance.unfinished)

    @property
    def last_used(self) -> float:
        """Unix time of the last use, in seconds."""
        return self._last_used

    def is_called_with(self, scope: Any) -> bool:
        """Whether its instance was called with this very scope."""
        return self.instance is not None and self.instance.scope is scope

    def touch(self, now_s: float) -> None:
        """Note a use."""
        self._last_used = now_s

    def move(self, state: LaneState) -> None:
        """Change the state; the one place where it changes.

        Raises:
            ValueError: a step that `TRANSITIONS` does not have; nothing is changed.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"lane {self.scope_id!r} cannot go from {self.state} to {state}")
        self.state = state

    async def run(self) -> None:
        """Call the application as long as messages wait; the body of ``future``.

        Raises:
            Exception: what the last call of the application raised.
        """
        await self._host.admit(self)
        failure: Exception | None = None
        try:
            while self.is_open:
                failure = await self._run_instance()
                if not self.input_queue:
                    break
                await asyncio.sleep(0)  # one that sends to itself shall not stop the loop
        finally:
            self._host.leave(self)
        if self.state is not LaneState.ENDED:
            self.move(LaneState.ENDED)
        if failure is not None:
            raise failure

    async def _run_instance(self) -> Exception | None:
        try:
            instance = await self._host.prepare(self)
        except Exception as error:  # noqa: BLE001 - or the lane would end without a word
            instance = Instance(self, self.scope, refusal=error)
        self.instance = instance
        try:
            await self._host.call(instance)
        except asyncio.CancelledError as error:
            self._close(instance)
            self._host.raised(self, instance, instance.failure or error)
            raise
        except Exception as error:  # noqa: BLE001 - the border to the application
            self._close(instance)
            self._host.raised(self, instance, instance.failure or error)
            return error
        was_cut_off = instance.is_closed
        self._close(instance)
        if was_cut_off:
            # It swallowed its cancellation: what it was at is not finished all the same.
            self._host.raised(self, instance, instance.failure or asyncio.CancelledError())
        else:
            self._host.returned(self, instance)
        return None

    def _close(self, instance: Instance) -> None:
        instance.close()
        self._idle()

    def _idle(self) -> None:
        if self.is_busy:
            self.is_busy = False
            self._host.idled(self)

    def take(self, instance: Instance) -> Item:
        """See `wherry.runtime.instance.Post`."""
        if not self.input_queue or not self.is_open:
            raise LookupError
        if not self._host.begin(self, self.input_queue.peek()):
            raise LookupError
        self.is_busy = True
        item = self.input_queue.take()
        if self.input_queue:
            instance.wake()  # another receive() may wait
        return item

    def open(self, instance: Instance, item: Item) -> Message:
        """See `wherry.runtime.instance.Post`."""
        if isinstance(item, Delivery):
            instance.unfinished.append(item)
            return self._host.open(self, item)
        return item

    def rest(self, instance: Instance) -> None:
        """See `wherry.runtime.instance.Post`."""
        if not instance.unfinished:
            self._idle()
            self._host.rest(self)

    def stir(self, instance: Instance) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.stir(self)

    def finish(self, instance: Instance, delivery: Delivery) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.finish(self, delivery)

    def fail(self, instance: Instance, error: WherryError) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.fail(self, error)

    def pass_on(self, scope: Any, message: Message) -> Any:
        """See `wherry.runtime.instance.Post`."""
        return self._host.pass_on(scope, message)

    def second_receive(self) -> None:
        """See `wherry.runtime.instance.Post`."""
        self._host.second_receive()

    def wake(self) -> None:
        """Something was put into the inbox."""
        self._host.queued(self)
        if self.instance is not None:
            self.instance.wake()

    def __getitem__(self, key: str) -> Any:
        """One of the four values that asgiref's users know, or one of their own."""
        if key in _KEYS:
            return getattr(self, key)
        if self._extras is None:
            raise KeyError(key)
        return self._extras[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; ``last_used`` decides who is ended first.

        Raises:
            TypeError: the queue and the task of an instance cannot be replaced.
        """
        if key == "last_used":
            self._last_used = value
            self._host.used(self)
        elif key == "scope":
            self.scope = value
        elif key in _KEYS:
            raise TypeError(f"{key} of an application instance cannot be replaced")
        else:
            self._extras = self._extras or {}
            self._extras[key] = value

    def __delitem__(self, key: str) -> None:
        """Remove a value of user code's own."""
        if key in _KEYS:
            raise TypeError(f"{key} of an application instance cannot be removed")
        if self._extras is None:
            raise KeyError(key)
        del self._extras[key]

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return iter((*_KEYS, *(self._extras or ())))

    def __len__(self) -> int:
        """Number of keys."""
        return len(_KEYS) + len(self._extras or ())

    def __eq__(self, other: object) -> bool:
        """Whether it is the same lane."""
        return self is other

    def __hash__(self) -> int:
        """By identity, as it is equal to itself alone."""
        return object.__hash__(self)

    def __repr__(self) -> str:
        """Whose lane it is."""
        return f"<Lane of scope {self.scope_id!r}, {self.state.value}>"
