"""Applications that the harness's tests run."""

from __future__ import annotations

import asyncio
from typing import Any


async def echo(scope, receive, send):
    while True:
        message = await receive()
        await send({"type": "echo", "text": message["text"]})


async def counter(scope, receive, send):
    """Counts in durable state; what takes a while is in the middle of a message."""
    while True:
        message = await receive()
        durable = scope["durable"]
        durable["count"] = durable.get("count", 0) + message.get("by", 1)
        await send({"type": "count", "count": durable["count"]})
        await asyncio.sleep(message.get("takes_s", 0))


async def streamer(scope, receive, send):
    """Answers with words, one a second."""
    while True:
        message = await receive()
        for word in message["text"].split():
            await send({"type": "word", "word": word})
            await asyncio.sleep(1)


class Flaky:
    """Fails as often as the message says, then answers with the attempt; notes every try."""

    def __init__(self) -> None:
        self.tries: list[tuple[float, int]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        attempt = message["wherry"]["attempt"]
        self.tries.append((asyncio.get_running_loop().time(), attempt))
        if attempt <= message["failures"]:
            raise ValueError(f"no luck with {message['text']}")
        await send({"type": "done", "attempt": attempt})
