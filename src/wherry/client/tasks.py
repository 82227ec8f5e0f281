"""Tasks: the supervisor of a client's own tasks, which nobody's call waits for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_CANCEL_AGAIN_S = 0.05


class Tasks:
    """Owns background tasks. A client is lazy and has no scope of its own to nest them in."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        """Start with none."""
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        """Run a coroutine in the background until it ends or `aclose` cancels it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def aclose(self) -> None:
        """Cancel all that still run and wait until they have ended."""
        while running := [task for task in self._running if task is not asyncio.current_task()]:
            for task in running:
                task.cancel()
            # Again and again: asyncio.wait_for of Python 3.11, under which redis-py writes, may
            # lose a cancellation.
            await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


class Backoff:
    """Waits that grow, with jitter, up to a cap: for a store that does not answer."""

    __slots__ = ("_cap_s", "_failures", "_first_s")

    def __init__(self, first_s: float = 0.05, cap_s: float = 2.0) -> None:
        """Wait about ``first_s`` the first time and at most ``cap_s``."""
        self._first_s = first_s
        self._cap_s = cap_s
        self._failures = 0

    def next_s(self) -> float:
        """How long to wait after one more failure."""
        longest_s = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return longest_s * random.uniform(0.5, 1.0)

    async def wait(self) -> None:
        """Count a failure and wait."""
        await asyncio.sleep(self.next_s())

    def reset(self) -> None:
        """It worked: start small again."""
        self._failures = 0
