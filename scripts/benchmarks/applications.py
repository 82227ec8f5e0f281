"""The application that the workers under test run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from examples.flights.app import application as flights_application


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


async def flights(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The demo's application, with handlers that take 5 to 50 ms and tell when they began."""
    began_ms = 0.0

    async def receive_slowly() -> Any:
        nonlocal began_ms
        message = await receive()
        began_ms = time.time() * 1000
        # As long for the same flight in every attempt, and spread evenly.
        await asyncio.sleep(0.005 + 0.045 * (message["row"] * 0.618 % 1))
        return message

    async def send_with_beginning(message: dict[str, Any]) -> None:
        await send({**message, "began_ms": began_ms})

    await flights_application(scope, receive_slowly, send_with_beginning)


async def story(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI
    """Tell a story word by word, and at its end the whole of it."""
    while True:
        message = await receive()
        words: list[str] = []
        for number in range(message["words"]):
            words.append(f"word-{number}")
            await send({"type": "bench.word", "text": words[-1]})
            await asyncio.sleep(message["pause_s"])
        await send({"type": "bench.end", "text": " ".join(words)})
