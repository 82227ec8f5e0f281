"""Faults: what is done to workers and servers; each says whether it counts.

Several strike at a time, each another victim; one worker at least is always spared.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .fleet import Fleet, WorkerProcess
from .owning import Look, Lookout
from .proxy import DOWN, UP, Proxy
from .quota import Quota
from .servers import Server

GONE_S = 0.3
LOOK_AGAIN_S = 0.1
JOIN_S = 15.0
MOST_ADDED = 3
AHEAD = 0.03
"""Faults wait when their share is so far ahead of the messages' share."""

LATEST_S = 0.3

Strike = Callable[[WorkerProcess, Look], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What can be struck.

    Attributes:
        fleet: its workers.
        server: the one that is killed and started again.
        proxy: routes of the workers.
        lookout: tells who owns what.
        lease_s: length of a lease.
        size: workers at the start.
    """

    fleet: Fleet
    server: Server
    proxy: Proxy
    lookout: Lookout
    lease_s: float
    size: int


class Faults:
    """Strikes at random until everything wanted was done."""

    def __init__(self, field: Field, quota: Quota, random_: random.Random) -> None:
        self._field = field
        self._quota = quota
        self._random = random_
        self._by_kind: dict[str, Strike] = {
            "kill": self._kill,
            "stop": self._stop,
            "term": self._term,
            "in": self._scale_in,
            "delay": self._delay,
            "cut": self._cut,
            "hole": self._black_hole,
            "half": self._half_close,
        }

    async def run(self, messages_done: Callable[[], float], at_once: int) -> None:
        """Strike with so many hands; no faster than messages are sent."""
        async with asyncio.TaskGroup() as tasks:
            for hand in range(at_once):
                tasks.create_task(self._work(messages_done), name=f"hand:{hand}")

    async def _work(self, messages_done: Callable[[], float]) -> None:
        while not self._quota.is_done():
            await self._field.fleet.replace_ended()
            is_ahead = self._quota.share() > messages_done() + AHEAD
            kind = None if is_ahead else self._quota.begin(self._random, self._barred())
            if kind is None:
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            counts = None
            try:
                counts = await self._strike(kind)
            finally:
                self._quota.end(kind, is_done=counts is not None, counts=bool(counts))
            pause_s = LOOK_AGAIN_S if counts is None else self._field.lease_s / 8
            await asyncio.sleep(self._random.uniform(0.0, pause_s))

    def _barred(self) -> set[str]:
        """What cannot be done to a fleet of this size."""
        size = len(self._field.fleet.workers)
        return {"in"} if size <= 2 else {"out"} if size >= self._field.size + MOST_ADDED else set()

    async def _strike(self, kind: str) -> bool | None:
        """One fault: whether it counts, None if it could not be done."""
        if kind == "redis":
            return await self._kill_redis()
        if kind == "out":
            return await self._scale_out()
        look = await self._field.lookout.look()
        if look is None:
            return None
        spared = [one for one in self._field.fleet.workers if not one.is_struck]
        # Who has not joined yet is left alone: a fleet that never comes up shows nothing.
        ready = [one for one in spared if one.pid in look.workers and look.of(one.pid)]
        if len(spared) < 2 or not ready:
            return None
        victim = self._random.choice(ready)
        victim.is_struck = True
        try:
            return await self._by_kind[kind](victim, look)
        finally:
            victim.is_struck = False

    async def _still_owns(self, victim: WorkerProcess, before: Look) -> bool:
        after = await self._field.lookout.look()
        return after is not None and bool(after.still_of(victim.pid, before.of(victim.pid)))

    async def _kill(self, victim: WorkerProcess, before: Look) -> bool:
        self._field.fleet.signal(victim, signal.SIGKILL)
        await self._field.fleet.wait_end(victim)
        counts = await self._still_owns(victim, before)
        await self._field.fleet.start()
        return counts

    async def _term(self, victim: WorkerProcess, before: Look) -> bool:
        return await self._drain(victim, before, is_replaced=True)

    async def _scale_in(self, victim: WorkerProcess, before: Look) -> bool:
        return await self._drain(victim, before, is_replaced=False)

    async def _drain(self, victim: WorkerProcess, before: Look, *, is_replaced: bool) -> bool:
        """A scaling that does not count leaves the fleet's size alone, lest it drift away."""
        self._field.fleet.signal(victim, signal.SIGTERM)
        counts = await self._still_owns(victim, before)
        await self._field.fleet.wait_end(victim)
        if is_replaced or not counts:
            await self._field.fleet.start()
        return counts

    async def _stop(self, victim: WorkerProcess, before: Look) -> bool:
        """Counts if another worker took what was unfinished while this one stood still."""
        victim.process.send_signal(signal.SIGSTOP)
        try:
            look = await self._field.lookout.look()
            held = look.still_of(victim.pid, before.of(victim.pid)) if look else {}
            await asyncio.sleep(self._field.lease_s * self._random.uniform(1.2, 1.8))
            after = await self._field.lookout.look()
        finally:
            victim.process.send_signal(signal.SIGCONT)
        worker = before.workers[victim.pid]
        return after is not None and any(after.owners.get(p, worker) != worker for p in held)

    async def _scale_out(self) -> bool:
        """Counts if the fleet was at work and the new worker got partitions."""
        before = await self._field.lookout.look()
        added = await self._field.fleet.start()
        added.is_struck = True
        counts = await self._gets_partitions(added) and bool(before and before.first)
        added.is_struck = False
        if not counts and added in self._field.fleet.workers:
            self._field.fleet.signal(added, signal.SIGTERM)
            await self._field.fleet.wait_end(added)
        return counts

    async def _gets_partitions(self, added: WorkerProcess) -> bool:
        try:
            async with asyncio.timeout(JOIN_S):
                while added.process.returncode is None:
                    look = await self._field.lookout.look()
                    if look is not None and look.holds(added.pid):
                        return True
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            pass
        return False

    async def _kill_redis(self) -> bool:
        before = await self._field.lookout.look()
        self._field.server.kill()
        await asyncio.sleep(GONE_S)
        await asyncio.to_thread(self._field.server.start)
        after = await self._field.lookout.look()
        return bool(before and after and after.still(before.first))

    async def _delay(self, victim: WorkerProcess, before: Look) -> bool:
        await self._field.proxy.delay(victim.name, self._random.uniform(0.01, LATEST_S))
        counts = await self._still_owns(victim, before)
        await asyncio.sleep(self._field.lease_s * self._random.uniform(0.5, 1.5))
        await self._field.proxy.delay(victim.name, 0.0)
        return counts

    async def _cut(self, victim: WorkerProcess, before: Look) -> bool:
        await self._field.proxy.cut(victim.name)
        return await self._still_owns(victim, before)

    async def _black_hole(self, victim: WorkerProcess, before: Look) -> bool:
        return await self._hold(victim, before, (UP, DOWN))

    async def _half_close(self, victim: WorkerProcess, before: Look) -> bool:
        """Hold one direction, or end it in good order."""
        direction = self._random.choice((UP, DOWN))
        if self._random.random() < 0.5:
            return await self._hold(victim, before, (direction,))
        await self._field.proxy.finish(victim.name, direction)
        return await self._still_owns(victim, before)

    async def _hold(self, victim: WorkerProcess, before: Look, directions: tuple[str, ...]) -> bool:
        """Hold back for longer than a lease; then all of it arrives late, or never."""
        proxy = self._field.proxy
        await proxy.hold(victim.name, *directions)
        counts = await self._still_owns(victim, before)
        await asyncio.sleep(self._field.lease_s * self._random.uniform(1.2, 3.0))
        if self._random.random() < 0.5:
            await proxy.cut(victim.name)
        await proxy.free(victim.name)
        return counts
