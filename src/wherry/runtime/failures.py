"""Failures: errors of applications, on their way to ``application_exception``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..hooks import Hooks
from ..tracing import TRACE_ID, trace_id_of
from .lane import Lane

MOST_WAITING = 1_000
"""More errors than these do not wait to be told; they hold tracebacks, and all in them."""

Tell = Callable[[BaseException, Any], Awaitable[None]]


class Failures:
    """A queue of (error, instance's mapping, trace id). Belongs to no event loop."""

    __slots__ = ("_hooks", "_is_telling", "_waiters", "_waiting")

    def __init__(self, hooks: Hooks) -> None:
        """Start empty."""
        self._waiting: deque[tuple[BaseException, Any, str]] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self._is_telling = False
        self._hooks = hooks

    def add(self, error: BaseException, details: Any) -> None:
        """Hand in an error, before its message is let go; where too many wait it is logged."""
        if len(self._waiting) >= MOST_WAITING:
            self.log(error, details)
            return
        self._waiting.append((error, details, _trace_of(details)))
        self._notify()

    def log(self, error: BaseException, details: Any) -> None:
        """Log an error."""
        scope = str(details.scope_id) if isinstance(details, Lane) else "?"
        self._hooks.failed("Exception inside application", error, scope=scope)

    async def serve(self, tell: Tell) -> None:
        """Tell errors as they come, for ever.

        One at a time, also when several tasks serve.
        """
        while True:
            if self._waiting and not self._is_telling:
                await self._tell_next(tell)
            else:
                await self._change()

    async def flush(self, tell: Tell) -> None:
        """Return when every error has been told."""
        while self._waiting or self._is_telling:
            if self._is_telling:
                await self._change()
            else:
                await self._tell_next(tell)

    async def _tell_next(self, tell: Tell) -> None:
        self._is_telling = True
        error, details, trace_id = self._waiting.popleft()
        before = TRACE_ID.set(trace_id)
        try:
            await tell(error, details)
        finally:
            TRACE_ID.reset(before)
            self._is_telling = False
            self._notify()

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)


def _trace_of(details: Any) -> str:
    """The trace of the message that a lane's instance is at, "" if it is at none, or in none."""
    instance = details.instance if isinstance(details, Lane) else None
    unfinished = instance.unfinished if instance is not None else ()
    return trace_id_of(unfinished[0].entry.extras.headers) if unfinished else ""
