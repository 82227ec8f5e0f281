"""The application that the workers under test run."""

from __future__ import annotations

import asyncio
from typing import Any


async def work(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI
    """Take as long for each message as it says."""
    while True:
        message = await receive()
        await asyncio.sleep(message["work_s"])
        await send({"type": "bench.done"})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI
    """Answer each message with what it carried: a plain loop, for ever."""
    while True:
        message = await receive()
        await send({"type": "bench.reply", "n": message["n"], "data": message["data"]})


async def tally(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as `echo` does, and count the messages of the scope in its durable state."""
    durable = scope["durable"]
    while True:
        message = await receive()
        durable["count"] = durable.get("count", 0) + 1
        await send({"type": "bench.reply", "n": message["n"], "data": message["data"]})
