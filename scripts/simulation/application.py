"""The application under simulation: counts, answers, streams, fails; all in its durable state."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

WORDS = 3


class Refusal(Exception):
    """What the application raises on purpose."""


def chain(before: int, n: int) -> int:
    """Digest of a scope's history: of the one before, and the number of this message."""
    return zlib.crc32(b"%d:%d" % (before, n))


class Application:
    """One application in all workers, and what is known of it though workers forget.

    Attributes:
        raised: how often an attempt of an entry (its scope and id) failed.
        runs: how often an entry was begun.
        opened: entries in hand -> the node that has them.
        attempts: highest attempt number that an entry was given.
        handled: entries that were handled to their end -> the node that did it last.
    """

    def __init__(self, chance: random.Random, where: Callable[[], str]) -> None:
        self._chance = chance
        self._where = where
        self._greetings = 0
        self.raised: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.opened: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.handled: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope."""
        if self._chance.random() < 0.3:
            self._greetings += 1
            await send({"type": "greeting", "number": self._greetings})
        while True:
            message = await receive()
            entry_id = f"{scope['scope_id']} {message['wherry']['id']}"
            attempt = message["wherry"]["attempt"]
            self.runs[entry_id] += 1
            self.attempts[entry_id] = max(attempt, self.attempts.get(entry_id, 0))
            self.opened[entry_id] = self._where()
            await self._handle(entry_id, scope["durable"], message, send)
            self.opened.pop(entry_id, None)
            self.handled[entry_id] = self._where()
            if message["returns"]:
                return

    async def _handle(
        self, entry_id: str, durable: dict[str, Any], message: dict[str, Any], send: Any
    ) -> None:
        n = message["n"]
        if message["works_s"]:
            await asyncio.sleep(message["works_s"])
        durable["count"] = durable.get("count", 0) + 1
        durable["digest"] = chain(durable.get("digest", 0), n)
        if message["type"] == "tell":
            for word in range(WORDS):
                await send({"type": "word", "n": n, "word": word})
                if self._chance.random() < 0.6:
                    await asyncio.sleep(self._chance.random() * 0.02)
        if message["wherry"]["attempt"] <= message["fails"]:
            self.raised[entry_id] += 1
            self.opened.pop(entry_id, None)
            raise Refusal(n)
        await send({"type": "done", "n": n, **durable})
