"""Instance: one call of the application, ``app(scope, receive, send)``.

A message is finished when the application calls ``receive()`` again, or returns after it
received. A message leaves the inbox in the last synchronous step of ``receive()``: a cancelled
``receive()`` loses nothing. In ack mode a message is finished by ``message.ack`` alone, and up
to `MAX_UNACKED` of them may be open at a time.

Several ``receive()`` at a time get their messages in the order in which they were called. While
an instance is *held* none gets any: the application is at something else that it must not mix
with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import ScopeClosed, WherryError
from ..model import Message
from .delivery import Delivery

MAX_UNACKED = 16
NOTHING: Any = object()
"""Stands for a message where there is none."""


class Post(Protocol):
    """What an instance needs of its lane."""

    def take(self, instance: Instance) -> Any:
        """The next message for the instance, now being handled.

        `NOTHING` when none may be taken now; `Instance.wake` is called when that changes.
        """
        ...

    def rest(self, instance: Instance) -> None:
        """The instance waits in ``receive()`` and nothing can be taken."""
        ...

    def stir(self, instance: Instance) -> None:
        """The instance no longer waits in ``receive()``, though it got nothing."""
        ...

    def finish_all(self, instance: Instance) -> None:
        """All that was handed out is finished, oldest first; its effects may be committed."""
        ...

    def finish(self, instance: Instance, delivery: Delivery) -> None:
        """One of several deliveries is finished."""
        ...

    def fail(self, instance: Instance, error: WherryError) -> None:
        """What was handed out has failed, and the application is to end."""
        ...

    def pass_on(self, instance: Instance, message: Message) -> Awaitable[None] | None:
        """Hand on a message that the application sends; None: it is done."""
        ...

    def second_receive(self) -> None:
        """The application called ``receive()`` while another ``receive()`` was waiting."""
        ...


class Instance:
    """One running application call.

    Attributes:
        scope: what the application was called with.
        waiters: one for each ``receive()`` that waits, oldest call first.
        unfinished: deliveries handed out and not finished, oldest first.
        has_received: whether anything was handed out.
        is_closed: the call has ended, or is to end; ``send()`` raises.
        acks: finish by ``message.ack`` only.
        refusal: why the application cannot be called, or None.
        failure: why a message could not be finished, which fails its attempt and ends the call.
        farewell: what is to be received before the end, {} once it was; None if nothing is.
    """

    __slots__ = (
        "_holds",
        "_in_hand",
        "_post",
        "acks",
        "failure",
        "farewell",
        "has_received",
        "is_closed",
        "refusal",
        "scope",
        "unfinished",
        "waiters",
    )

    def __init__(
        self, post: Post, scope: Any, *, acks: bool = False, refusal: Exception | None = None
    ) -> None:
        """Stand between the application and its lane."""
        self.refusal = refusal
        self.failure: WherryError | None = None
        self.farewell: Message | None = None
        self._post = post
        self.waiters: list[asyncio.Future[None]] = []
        self._holds = 0
        self._in_hand = 0  # messages handed out for which receive() was not called again
        self.scope = scope
        self.unfinished: tuple[Delivery, ...] = ()
        self.has_received = False
        self.is_closed = False
        self.acks = acks

    def is_waiting(self) -> bool:
        """Whether the application sits in ``receive()``, with nothing else to do."""
        return bool(self.waiters) and not self._holds

    async def receive(self) -> Message:
        """The ``receive`` of the application.

        Raises:
            CancelledError: the instance has ended. An application that swallowed its
                cancellation is cancelled again by it: a plain error would be caught by the
                loops that log errors and go on, and they would spin for ever.
        """
        waiters, place = self.waiters, 0
        if self.is_closed:
            await asyncio.sleep(0)  # whoever swallows this one too shall not stop the loop
        else:
            if self._in_hand:
                self._in_hand -= 1
            place = len(waiters)
            if place:
                self._post.second_receive()
            elif self.unfinished and not self.acks:
                try:
                    self._post.finish_all(self)
                except WherryError as error:
                    self._fail(error)
        while not self.is_closed:
            if place:
                pass  # others were here before
            elif self.farewell:
                message, self.farewell = self.farewell, {}
                self._in_hand += 1
                return message
            elif not self._holds and (not self.acks or len(self.unfinished) < MAX_UNACKED):
                message = self._post.take(self)
                if message is not NOTHING:
                    self.has_received = True
                    self._in_hand += 1
                    return message
            # Not in a coroutine of its own: there are as many as there are idle instances.
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters.insert(place, waiter)
            place = 0
            if not self._in_hand and not self._holds:
                self._post.rest(self)
            try:
                await waiter
            except asyncio.CancelledError:
                self._stop_waiting(waiter)
                raise
            waiters.remove(waiter)
        raise asyncio.CancelledError("the application instance has ended")

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Hand nothing out meanwhile, and do not count as idle."""
        self._holds += 1
        if self.waiters:
            self._post.stir(self)
        try:
            yield
        finally:
            self._holds -= 1
            self.wake()

    async def send(self, message: Message) -> None:
        """The ``send`` of the application.

        Raises:
            ScopeClosed: the instance has ended.
        """
        if self.is_closed:
            raise ScopeClosed("send() after the application instance has ended")
        under_way = self._post.pass_on(self, message)
        if under_way is not None:
            await under_way

    def _fail(self, error: WherryError) -> None:
        self.failure = error
        self.close()
        self._post.fail(self, error)  # the application may catch what it is told

    def acknowledge(self, entry_id: str) -> bool:
        """Finish one delivery; False if it is not open.

        Raises:
            MessageError: its durable state cannot be kept; its attempt fails.
        """
        if self.is_closed:
            return False
        for index, delivery in enumerate(self.unfinished):
            if delivery.entry.id == entry_id:
                try:
                    self._post.finish(self, delivery)
                except WherryError as error:
                    self._fail(error)
                    raise
                self.unfinished = self.unfinished[:index] + self.unfinished[index + 1 :]
                self.wake()
                if self.is_waiting():
                    self._post.rest(self)
                return True
        return False

    def wake(self) -> None:
        """Let the oldest ``receive()`` that is not awake look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
                return

    def abandon(self) -> Sequence[Delivery]:
        """Let go of what is unfinished, and return it: somebody else begins it anew."""
        abandoned, self.unfinished = self.unfinished, ()
        for delivery in abandoned:
            delivery.stop_timer()
        return abandoned

    def close(self) -> None:
        """Refuse further sends and wake everything that still waits."""
        self.is_closed = True
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _stop_waiting(self, waiter: asyncio.Future[None]) -> None:
        """A ``receive()`` that waited was cancelled."""
        self.waiters.remove(waiter)
        # The wake-up was for whoever can use it; and while this one was still in the list,
        # those that came after it queued behind it and were not woken.
        self.wake()
        if not self.waiters:
            self._post.stir(self)
