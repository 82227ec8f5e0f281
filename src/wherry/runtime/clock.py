"""Clock: Redis' time as a worker knows it between two beats."""

from __future__ import annotations

import asyncio


class Clock:
    """Redis' clock, carried on by the loop's own.

    Only for deadlines that are written down in Redis' time, such as an entry's expiry; no
    decision about ownership is taken by it.

    Attributes:
        now_s: the loop's time in seconds; means nothing outside this process.
    """

    __slots__ = ("_at_s", "_redis_ms", "now_s")

    def __init__(self) -> None:
        """Know nothing yet."""
        self.now_s = _loop_time
        self._redis_ms = 0
        self._at_s = 0.0

    def start(self) -> None:
        """Go by the running loop from now on."""
        self.now_s = asyncio.get_running_loop().time

    def set(self, redis_ms: int) -> None:
        """Note what Redis just said."""
        self._redis_ms = redis_ms
        self._at_s = self.now_s()

    def age_s(self) -> float:
        """How long ago Redis last said it; called in the loop's thread."""
        return self.now_s() - self._at_s

    def redis_ms(self) -> int:
        """About what Redis' clock shows, unix milliseconds."""
        return self._redis_ms + int((self.now_s() - self._at_s) * 1000)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
