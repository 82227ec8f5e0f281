"""The application under fault: counts in its durable state and answers with what it counted."""

from __future__ import annotations

import asyncio
import random
from typing import Any

WORDS = ("wherry", "carries", "what", "you", "send")
HANDLING_S = 0.003


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Take ``count`` messages, and ``tell`` messages that are answered word by word."""
    while True:
        message = await receive()
        durable = scope["durable"]
        if random.random() < 0.2:
            await asyncio.sleep(random.uniform(0.0, HANDLING_S))
        durable["count"] = durable.get("count", 0) + 1
        in_order = durable.get("last", 0) + 1 == message["n"]
        durable["last"] = message["n"]
        if message["type"] == "tell":
            for word in WORDS:
                await send({"type": "word", "n": message["n"], "word": word})
                await asyncio.sleep(HANDLING_S)
        await send(
            {
                "type": "counted",
                "n": message["n"],
                "count": durable["count"],
                "in_order": in_order,
            }
        )
