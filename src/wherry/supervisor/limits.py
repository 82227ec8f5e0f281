"""Limits: when a worker process has done enough, or has grown too large, and should be replaced."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.5
"""Nothing tells when memory grows: it must be looked at."""
JITTER = 0.1
"""Workers that were started together shall not be replaced together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process may do before it is replaced.

    Attributes:
        messages: that it may finish, 0 for any number.
        memory_bytes: that it may occupy, 0 for any amount.
    """

    messages: int = 0
    memory_bytes: int = 0

    @property
    def are_any(self) -> bool:
        """Whether there is something to look at."""
        return bool(self.messages or self.memory_bytes)

    def spread(self, draw: Callable[[], float]) -> Limits:
        """The same with up to a tenth more messages, by chance."""
        more = int(self.messages * JITTER * draw())
        return Limits(messages=self.messages + more, memory_bytes=self.memory_bytes)

    def reason(self, messages: int, memory_bytes: int) -> str:
        """Which limit is reached, as a sentence; "" if none is."""
        if self.messages and messages >= self.messages:
            return f"it has finished {messages} messages (max_messages)"
        if self.memory_bytes and memory_bytes >= self.memory_bytes:
            return f"it occupies {memory_bytes / 2**20:.0f} MiB (max_memory)"
        return ""


async def wait_until_reached(limits: Limits, finished: Callable[[], int]) -> str:
    """Return the reason when a limit is reached.

    Args:
        limits: of this process.
        finished: gives the number of messages that it has finished.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        memory_bytes = resident_bytes() if limits.memory_bytes else 0
        if reason := limits.reason(finished(), memory_bytes):
            return reason


def resident_bytes() -> int:
    """Memory that this process occupies; where the system does not tell, the most that it did."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
