"""Clock: Redis' time as a worker knows it between two beats."""

from __future__ import annotations

import asyncio


class Clock:
    """Redis' clock, carried on by the loop's own.

    Only for deadlines that are written down in Redis' time, such as an entry's expiry; no
    decision about ownership is taken by it.
    """

    __slots__ = ("_at_s", "_redis_ms")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._redis_ms = 0
        self._at_s = 0.0

    def set(self, redis_ms: int) -> None:
        """Note what Redis just said."""
        self._redis_ms = redis_ms
        self._at_s = self.now_s()

    def now_s(self) -> float:
        """The loop's time in seconds; means nothing outside this process."""
        return asyncio.get_running_loop().time()

    def redis_ms(self) -> int:
        """About what Redis' clock shows, unix milliseconds."""
        return self._redis_ms + int((self.now_s() - self._at_s) * 1000)
