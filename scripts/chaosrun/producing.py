"""The producer: numbers the messages of each scope and writes down which were accepted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from wherry import Client, NotReplicated, StoreUnavailable

from .application import SHAPES
from .journal import Journal, Sent

WAITING = 10
"""Messages that a scope may have unfinished: a partition that is shut does not fill the rest."""
ROUND = 400
FAR_S = 3_600.0
LONGEST_WORK_S = 0.5
KINDS = {"count": 60, "plain": 16, "tell": 6, "flush": 5, "flaky": 6, "poison": 2, "late": 5}
"""How often each kind is sent, of a hundred."""


class Producer:
    """Sends at least ``messages`` messages to ``scopes`` scopes, until all faults are done.

    Attributes:
        journal: what was accepted.
        repeated: how many messages were sent a second time on purpose.
        unconfirmed: how often a message was sent again because too few replicas had it.
        other: what is wrong with answers to the producer.
    """

    def __init__(
        self, client: Client, journal: Journal, messages: int, scopes: int, replicas: int = 0
    ) -> None:
        self._replicas = replicas
        self.unconfirmed = 0
        self.journal = journal
        self.repeated = 0
        self.wrong: list[str] = []
        self.names = [f"{SHAPES[number % len(SHAPES)]}-{number}" for number in range(scopes)]
        self._client = client
        self._messages = messages
        self._numbers: Counter[str] = Counter()
        self._work_s = 0.0

    def share(self) -> float:
        """Part of the messages that was sent, from 0 up."""
        return self.journal.accepted / self._messages

    async def run(self, random_: random.Random, faults_done: Callable[[], float]) -> None:
        """Send until both are done; messages take the longer the further they are ahead."""
        while self.share() < 1 or faults_done() < 1:
            ahead = min(1.0, self.share()) - faults_done()
            self._work_s = max(0.0, min(LONGEST_WORK_S, 5 * LONGEST_WORK_S * ahead))
            self.journal.moved.clear()
            waiting = self.journal.waiting
            # A message whose sending got no answer waits, too: nobody would know its order.
            free = [name for name in self.names if waiting[name] < WAITING]
            if len(free) < ROUND // 4:
                try:
                    async with asyncio.timeout(0.05):
                        await self.journal.moved.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(0.005)
            async with asyncio.TaskGroup() as tasks:
                for name in random_.sample(free, min(ROUND, len(free))):
                    tasks.create_task(self._send(name, random_), name=f"send:{name}")

    async def _send(self, name: str, random_: random.Random) -> None:
        self._numbers[name] += 1
        number = self._numbers[name]
        drawn = random_.choices(list(KINDS), weights=list(KINDS.values()))[0]
        kind = "count" if drawn in ("plain", "flaky") else drawn
        fails = random_.randint(1, 2) if drawn == "flaky" else 0
        if kind in ("tell", "flush") and random_.random() < 0.1:
            fails = 1
        work_s = random_.uniform(0, 2 * self._work_s)
        if not work_s and random_.random() < 0.2:
            work_s = random_.uniform(0.0, 0.003)
        message = {"type": kind, "n": number, "work_s": work_s, "fails": fails}
        options: dict[str, Any] = {"stream": kind == "tell"}
        if kind == "late":
            options["expires_s"] = random_.uniform(0.001, 0.5)
        elif random_.random() < 0.1:
            options["expires_s"] = FAR_S
        sent = Sent("", number, kind, fails)
        if drawn == "plain" and not self._replicas:
            await self._send_once(name, message, options, sent)
        else:
            await self._send_surely(name, message, options, sent)
            if random_.random() < 0.05:
                self.repeated += 1
                await self._send_surely(name, message, options, sent)

    async def _send_once(
        self, name: str, message: dict[str, Any], options: dict[str, Any], sent: Sent
    ) -> None:
        """As most send: what got no answer may have been appended."""
        try:
            entry_id = await self._client.send(name, message, **options)
        except StoreUnavailable:
            self.journal.unsure.setdefault(name, []).append(sent)
        else:
            self.journal.accept(name, sent._replace(entry_id=entry_id))

    async def _send_surely(
        self, name: str, message: dict[str, Any], options: dict[str, Any], sent: Sent
    ) -> None:
        """With a message id: again until it is accepted; a second sending is the first."""
        while True:
            try:
                entry_id = await self._client.send(
                    name,
                    message,
                    message_id=f"{name}:{sent.number}",
                    replicas=self._replicas,
                    **options,
                )
                break
            except StoreUnavailable:
                await asyncio.sleep(0.2)
            except NotReplicated:
                self.unconfirmed += 1
        log = self.journal.sent.get(name)
        if not log or log[-1].entry_id != entry_id:
            self.journal.accept(name, sent._replace(entry_id=entry_id))
