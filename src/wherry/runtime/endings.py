"""Endings: what follows for its messages when a call of the application has ended."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context

from ..errors import ScopeClosed, WherryError
from .delivery import Delivery
from .failures import Failures
from .instance import Instance
from .lane import Lane
from .policy import Policy

MOST_PASSES = 3
"""So many cancelled instances may leave the same message untaken; then it is to blame."""


class Endings:
    """Judges ended instances."""

    __slots__ = ("_context", "_failures", "_policy")

    def __init__(self, policy: Policy, failures: Failures) -> None:
        """Tell a policy what has become of messages, and report errors."""
        self._policy = policy
        self._failures = failures
        self._context: Context | None = None

    def context(self) -> Context:
        """Where the ends of the lanes' tasks are told, one at a time.

        It is that of the first lane: a copy for each would be kept as long as the lane. An empty
        one will not do, as an instance may be started in it that follows another.
        """
        if self._context is None:
            self._context = copy_context()
        return self._context

    def returned(self, lane: Lane, instance: Instance) -> None:
        """The application returned: what it was given is finished."""
        if not instance.acks:
            try:
                lane.finish_all(instance)
            except WherryError as error:
                self._failures.add(error, lane)
                self.fail(lane, instance, error)
        if instance.unfinished:
            error = RuntimeError("the application returned without acknowledging its message")
        elif not instance.has_received and lane.input_queue:
            error = RuntimeError("the application returned without receiving its message")
        else:
            return
        self._failures.add(error, lane)
        self.fail(lane, instance, error)

    def raised(self, lane: Lane, instance: Instance, error: BaseException) -> None:
        """The application raised, or was cancelled."""
        task = asyncio.current_task()
        is_cancelled = (
            isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
        )
        if not lane.is_open:
            for delivery in reversed(instance.unfinished):
                self._policy.interrupted(lane, delivery)
            instance.unfinished = ()
            is_told = error is instance.failure
            if not is_cancelled and not is_told and not isinstance(error, ScopeClosed):
                self._failures.add(error, lane)
            return
        if is_cancelled and not instance.has_received:
            # Whoever cancelled it did not mean the message. But if nobody did, and it is the
            # application that cancels its own task, the scope must not go round for ever.
            lane.input_queue.passes += 1
            if lane.input_queue.passes < MOST_PASSES:
                return
        if not is_cancelled:
            self._failures.add(error, lane)
        self.fail(lane, instance, error)

    def fail(self, lane: Lane, instance: Instance, error: BaseException) -> None:
        """The messages of an instance are not finished.

        Only the oldest message can be to blame; those behind it are put back as if untouched.
        """
        guilty, behind = instance.unfinished[:1], instance.unfinished[1:]
        instance.unfinished = ()
        for delivery in reversed(behind):
            delivery.begin_anew()
            lane.input_queue.put_back(delivery)
        if not guilty and not instance.has_received and lane.input_queue:
            head = lane.input_queue.take()
            guilty = (head,) if isinstance(head, Delivery) else ()
        for delivery in guilty:
            if self._policy.failed(lane, delivery, error):
                lane.input_queue.put_back(delivery)
