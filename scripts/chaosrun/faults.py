"""Faults: what is done to the fleet, as often as was asked for.

A fault counts only if its victim owned unfinished entries when it struck.
"""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass, field

from wherry.broker.connect import Link
from wherry.broker.leases import read_members, read_owners
from wherry.broker.scripts import Scripts
from wherry.broker.wire import Keys
from wherry.errors import WherryError
from wherry.model import Partition

from .fleet import Fleet, Server

GONE_S = 0.5
LOOK_AGAIN_S = 0.1


@dataclass(slots=True)
class Quota:
    """How often each fault is wanted, and how often it was done and counted."""

    wanted: dict[str, int]
    done: dict[str, int] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)

    def open(self) -> list[str]:
        """Faults that are still wanted."""
        return [kind for kind, count in self.wanted.items() if self.done.get(kind, 0) < count]

    def share(self) -> float:
        """Part of all faults that is done, from 0 to 1."""
        total = sum(self.wanted.values())
        return sum(self.done.values()) / total if total else 1.0

    def note(self, kind: str, counts: bool) -> None:
        """A fault was done."""
        self.struck[kind] = self.struck.get(kind, 0) + 1
        if counts:
            self.done[kind] = self.done.get(kind, 0) + 1


class Faults:
    """Strikes at random, one fault after another."""

    def __init__(self, fleet: Fleet, server: Server, link: Link, quota: Quota, lease_s: float):
        self._fleet = fleet
        self._server = server
        self._link = link
        self._quota = quota
        self._lease_s = lease_s
        self._keys = Keys("chaos")
        self._survey = Scripts(allow_oom=False).survey
        self._partitions = 0

    async def run(self, random_: random.Random) -> None:
        """Strike until everything wanted was done."""
        while kinds := self._quota.open():
            kind = random_.choice(kinds)
            if kind == "redis":
                await self._kill_redis()
            else:
                await self._strike(kind, random_)
            await self._fleet.replace_ended()
            await asyncio.sleep(random_.uniform(0.0, self._lease_s / 4))

    async def _kill_redis(self) -> None:
        self._server.kill()
        await asyncio.sleep(GONE_S)
        await asyncio.to_thread(self._server.start)
        self._quota.note("redis", counts=True)

    async def _strike(self, kind: str, random_: random.Random) -> None:
        # Who has not joined yet is left alone: a fleet that never comes up shows nothing.
        owners = await self._owners()
        ready = [one for one in self._fleet.workers if one.process.pid in owners]
        if not ready:
            await asyncio.sleep(LOOK_AGAIN_S)
            return
        victim = random_.choice(ready)
        counts = owners[victim.process.pid]
        if kind == "kill":
            await self._fleet.end(victim, signal.SIGKILL, replace=True)
        elif kind == "term":
            await self._fleet.end(victim, signal.SIGTERM, replace=True)
        else:
            victim.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._lease_s * random_.uniform(1.2, 1.8))
            victim.process.send_signal(signal.SIGCONT)
        self._quota.note(kind, counts)

    async def _owners(self) -> dict[int, bool]:
        """Process ids of the members -> whether their partitions hold unfinished entries."""
        try:
            if not self._partitions:
                self._partitions = int(await self._link.call("HGET", self._keys.meta, "partitions"))
            partitions = [Partition(number) for number in range(self._partitions)]
            members = await read_members(self._link, self._keys)
            owners = await read_owners(self._link, self._survey, self._keys, partitions)
            sizes = await self._link.calls([("XLEN", self._keys.entries(p)) for p in partitions])
        except (WherryError, TypeError):
            return {}
        busy = {
            owner
            for (owner, left_ms), size in zip(owners, sizes, strict=True)
            if left_ms > 0 and isinstance(size, int) and size
        }
        return {int(one.fields["pid"]): one.worker_id in busy for one in members}
