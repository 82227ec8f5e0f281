"""Farewell: what an instance that is to end is told first, where a type is configured for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .lane import Lane


class Farewell:
    """Announces ends.

    A ``channel`` scope defines no such event, and a Channels consumer raises on a type that it
    does not know: without a configured type nothing is said.
    """

    __slots__ = ("_grace_s", "_type")

    def __init__(self, type_: str = "", grace_s: float = 0.0) -> None:
        """Announce with a message of this type, and leave this long before the cancellation."""
        self._type = type_
        self._grace_s = grace_s

    def say(self, lane: Lane, cancel: Callable[[Lane], None]) -> bool:
        """Tell an instance that sits idle in ``receive()``; ``cancel`` follows after the grace.

        False if there is nothing to say, or nobody to say it to, or it was said already.
        """
        instance = lane.instance
        if not self._type or instance is None or instance.farewell is not None:
            return False
        if not instance.is_waiting() or instance.unfinished:
            return False
        instance.farewell = {"type": self._type}
        instance.wake()
        asyncio.get_running_loop().call_later(self._grace_s, cancel, lane)
        return True
