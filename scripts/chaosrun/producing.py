"""The producer: numbers the messages of each scope and remembers which were accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from wherry import Client, StoreUnavailable

TELL_EVERY = 25
ROUND = 400
BACKLOG = 4_000


class Producer:
    """Sends at least ``messages`` messages to ``scopes`` scopes, until all faults are done.

    Attributes:
        sent: messages accepted so far.
        counts: scope -> number of its last message.
        told: scope -> numbers of its streamed messages.
    """

    def __init__(self, client: Client, messages: int, scopes: int) -> None:
        self.sent = 0
        self.counts: dict[str, int] = {}
        self.told: dict[str, set[int]] = {}
        self._client = client
        self._messages = messages
        self._names = [f"scope-{number}" for number in range(scopes)]

    async def run(
        self, random_: random.Random, share: Callable[[], float], answered: Callable[[], int]
    ) -> None:
        """Send; keeps some backlog, so that every fault meets unfinished work."""
        while self.sent < self._messages or share() < 1:
            if self.sent - answered() > BACKLOG:
                await asyncio.sleep(0.01)
                continue
            async with asyncio.TaskGroup() as tasks:
                for name in random_.sample(self._names, min(ROUND, len(self._names))):
                    tasks.create_task(self._send(name))

    async def _send(self, name: str) -> None:
        number = self.counts.get(name, 0) + 1
        self.counts[name] = number
        is_told = (number + len(name)) % TELL_EVERY == 0
        message = {"type": "tell" if is_told else "count", "n": number}
        while True:
            try:
                await self._client.send(
                    name, message, message_id=f"{name}:{number}", stream=is_told
                )
                break
            except StoreUnavailable:
                await asyncio.sleep(0.2)
        if is_told:
            self.told.setdefault(name, set()).add(number)
        self.sent += 1
