"""The progress line: rewritten in place on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator
from typing import TextIO

TERMINAL_INTERVAL_S = 0.1
SPARSE_INTERVAL_S = 2.0
SILENCE_S = 60.0
"""Without an answer for so long something is wrong."""


class Stalled(Exception):
    """No answer came for `SILENCE_S`."""


class Progress:
    """Counts what was sent and answered, and shows it.

    Attributes:
        sent: flights accepted.
        answered: answers read.
        total: flights of the month.
        duration_s: seconds that the showing took, once it has ended.
    """

    def __init__(self, total: int, stream: TextIO = sys.stdout) -> None:
        self.sent = 0
        self.answered = 0
        self.total = total
        self.duration_s = 0.0
        self._stream = stream
        self._is_terminal = stream.isatty()

    def add_sent(self, count: int) -> None:
        """Count flights that were accepted."""
        self.sent += count

    def add_answer(self) -> None:
        """Count an answer."""
        self.answered += 1

    @contextlib.asynccontextmanager
    async def shown(self, tasks: asyncio.TaskGroup) -> AsyncGenerator[None]:
        """Show the figures while the block runs, and once more at its end.

        Args:
            tasks: whose block is cancelled when nothing is answered any more.
        """
        started_at_s = time.monotonic()
        showing = tasks.create_task(self._show(started_at_s), name="demo:progress")
        try:
            yield
        finally:
            showing.cancel()
            self.duration_s = time.monotonic() - started_at_s
            self._write(self.duration_s, end="\n")

    async def _show(self, started_at_s: float) -> None:
        interval_s = TERMINAL_INTERVAL_S if self._is_terminal else SPARSE_INTERVAL_S
        answered, answered_at_s = 0, started_at_s
        while True:
            now_s = time.monotonic()
            if self.answered != answered:
                answered, answered_at_s = self.answered, now_s
            elif now_s - answered_at_s > SILENCE_S:
                raise Stalled(f"no flight was answered for {SILENCE_S:g} s; are workers running?")
            self._write(now_s - started_at_s, end="" if self._is_terminal else "\n")
            await asyncio.sleep(interval_s)

    def _write(self, duration_s: float, *, end: str) -> None:
        line = f"sent {self.sent:>6,} of {self.total:,}   answered {self.answered:>6,}"
        start = "\r\x1b[K" if self._is_terminal else ""
        print(f"{start}{line}   {duration_s:4.1f} s", end=end, file=self._stream, flush=True)
