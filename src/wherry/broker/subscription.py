"""Subscription: pub/sub over a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.exceptions as redis_errors

from .heeding import heeding_cancellation
from .mapping import map_error

CONFIRM_S = 5.0
QUIET_S = 10.0
"""A subscription over which nothing has come for so long is asked whether it lives."""


class Subscription:
    """One pub/sub subscription."""

    __slots__ = ("_channels", "_pubsub", "_quiet_s", "_where")

    def __init__(
        self, pubsub: Any, channels: Sequence[str], where: str, quiet_s: float | None
    ) -> None:
        """Take over a pubsub object that is subscribed to these channels."""
        self._quiet_s = quiet_s
        self._pubsub = pubsub
        self._channels = channels
        self._where = where

    async def confirm(self) -> None:
        """Wait until the server has taken the subscription; raises as `PooledLink.call` does."""
        try:
            with heeding_cancellation():
                await self._pubsub.get_message(timeout=CONFIRM_S)
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error

    async def next(self) -> tuple[str, bytes]:
        """Wait for the next message: its channel and what was published.

        Where nothing is published nothing comes, over a connection of which only one half is alive
        neither: so the server is asked from time to time whether it is there.

        Raises:
            StoreUnavailable: the connection broke, or is silent; subscribe again.
        """
        is_asked = False
        try:
            while True:
                with heeding_cancellation():
                    message = await self._pubsub.get_message(timeout=self._quiet_s)
                    if message is None:
                        if is_asked:
                            raise TimeoutError(f"no answer for {self._quiet_s} s")
                        # Not PING: who may subscribe may do that, and perhaps no more.
                        await self._pubsub.subscribe(*self._channels)
                        is_asked = True
                        continue
                is_asked = False
                if message["type"] == "message":
                    return message["channel"].decode(), message["data"]
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error

    async def aclose(self) -> None:
        """End the subscription."""
        await self._pubsub.aclose()
