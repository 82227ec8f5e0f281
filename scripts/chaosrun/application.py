"""The application under fault: counts in its durable state and answers with what it counted.

The first part of a scope's name says how its instance works: ``loop`` receives for ever, ``once``
returns after one message, ``ack`` holds a ``receive()`` beside its work and acknowledges by hand,
and ``bare`` is a loop that keeps no state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

SHAPES = ("loop", "once", "ack", "bare")
WORDS = ("wherry", "carries", "what", "you", "send")
WORD_PAUSE_S = 0.003

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Planned(Exception):
    """What a message asks for that is to fail."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one scope as its name asks."""
    shape = scope["scope_id"].partition("-")[0]
    if shape == "once":
        await _handle(scope, await receive(), send)
    elif shape == "ack":
        await _acknowledge_by_hand(scope, receive, send)
    else:
        while True:
            await _handle(scope, await receive(), send)


async def _acknowledge_by_hand(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "message.ack"})
    waiting = asyncio.ensure_future(receive())
    try:
        while True:
            message = await waiting
            waiting = asyncio.ensure_future(receive())

            async def answer(event: dict[str, Any], cause: Any = message["wherry"]) -> None:
                await send({**event, "wherry": cause})

            await _handle(scope, message, answer)
            await send({"type": "message.ack", "id": message["wherry"]["id"]})
    finally:
        waiting.cancel()


async def _handle(scope: Any, message: dict[str, Any], send: Send) -> None:
    """Do what a message asks for; what fails has changed the state and sent replies before."""
    number, attempt = message["n"], message["wherry"]["attempt"]
    if message["work_s"]:
        await asyncio.sleep(message["work_s"])
    count = None
    if not scope["scope_id"].startswith("bare"):
        durable = scope["durable"]
        count = durable["count"] = durable.get("count", 0) + 1
        durable["last"] = number
    for word in WORDS if message["type"] in ("tell", "flush") else ():
        await send({"type": "word", "n": number, "word": word})
        if message["type"] == "flush":
            await send({"type": "wherry.flush"})
        await asyncio.sleep(WORD_PAUSE_S)
    done = {"type": "done", "n": number, "count": count, "attempt": attempt}
    if message["type"] == "poison" or attempt <= message.get("fails", 0):
        await send(done)
        raise Planned(f"message {number} fails in attempt {attempt}")
    await send(done)
