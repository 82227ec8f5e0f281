"""Blocked: who keeps the event loop from turning, as another thread sees it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

from ..hooks import Hooks

PREFIX = "instance:"


class Blocked:
    """Looks from time to time when the loop turned last.

    Nothing is measured in the loop itself. A look that comes late says nothing: then it was the
    process that stood still, and not the loop alone.
    """

    __slots__ = ("_hooks", "_looked_at_s", "_loop_thread", "_told_of_s")

    def __init__(self, hooks: Hooks) -> None:
        """Made in the loop's thread, looked through in another."""
        self._hooks = hooks
        self._loop_thread = threading.get_ident()
        self._looked_at_s = 0.0
        self._told_of_s = 0.0

    def look(
        self, loop: asyncio.AbstractEventLoop, turned_at_s: float, limit_s: float, late_s: float
    ) -> None:
        """Say once for each block who it is.

        Args:
            loop: the event loop.
            turned_at_s: monotonic time of its last known turn.
            limit_s: it is blocked when it has not turned for longer.
            late_s: a look so long after the last one is a late one.
        """
        now_s = time.monotonic()
        looked_at_s, self._looked_at_s = self._looked_at_s, now_s
        is_late = now_s - looked_at_s > late_s
        if now_s - turned_at_s > limit_s and not is_late and turned_at_s != self._told_of_s:
            self._told_of_s = turned_at_s
            self._hooks.warn(
                "the event loop is blocked; beyond a lease its partitions go to another worker: "
                "an application must await, or call asyncio.to_thread()",
                duration_s=round(now_s - turned_at_s, 3),
                **self._who(loop),
            )

    def _who(self, loop: asyncio.AbstractEventLoop) -> dict[str, str]:
        """The scope, or the task if it is not that of an instance, and the line that runs."""
        found: dict[str, str] = {}
        task = asyncio.current_task(loop)
        if task is not None:
            name = task.get_name()
            is_instance = name.startswith(PREFIX)
            found["scope" if is_instance else "task"] = name.removeprefix(PREFIX)
        # Named so because it is for debugging, which this is:
        # https://docs.python.org/3/library/sys.html#sys._current_frames
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - public all the same
        frame = frames.get(self._loop_thread)
        if frame is not None:
            code = frame.f_code
            found["where"] = f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
        return found
