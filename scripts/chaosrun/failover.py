"""Failovers: the server dies for ever, and its replica takes over, with or without all it had."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from .fleet import Fleet
from .journal import Failover, Journal
from .owning import Lookout
from .proxy import Proxy
from .quota import Quota
from .servers import Server, catch_up

WHOLE, LATE = "failover whole", "failover late"
BY_SENTINELS = "failover by sentinels"
IN_CLUSTER = "failover in the cluster"
REPLICATION = "replication"
PAUSE_MS = 5_000
LAG_S = (0.05, 0.3)
BETWEEN_S = (0.5, 1.5)


class Failovers:
    """Two servers that take turns; everybody reaches the primary through the proxy."""

    def __init__(
        self,
        servers: tuple[Server, Server],
        proxy: Proxy,
        lookout: Lookout,
        fleet: Fleet,
        journal: Journal,
        quota: Quota,
    ) -> None:
        """Begin with a primary and a server that is to follow it."""
        self._primary, self._replica = servers
        self._port = 0
        self._proxy = proxy
        self._lookout = lookout
        self._fleet = fleet
        self._journal = journal
        self._quota = quota

    async def follow(self) -> None:
        """Let the replica follow, by a way of its own that can be cut."""
        self._port = await self._proxy.open(REPLICATION, self._primary.port)
        await asyncio.to_thread(self._replica.follow, self._port)

    async def run(
        self,
        random_: random.Random,
        messages_done: Callable[[], float],
        on_switched: Callable[[], None],
    ) -> None:
        """Fail over until everything wanted was done."""
        await until_done(
            self._quota,
            random_,
            messages_done,
            on_switched,
            lambda kind: self._fail_over(kind == WHOLE, random_),
        )

    async def _fail_over(self, is_whole: bool, random_: random.Random) -> bool:
        """Counts if entries that stood first before still stand there after."""
        await asyncio.to_thread(catch_up, self._primary, self._replica)
        if is_whole:
            before = await self._lookout.look()
            await asyncio.to_thread(self._primary.call, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
            await asyncio.to_thread(catch_up, self._primary, self._replica)
            cut_ms = now_ms()
        else:
            cut_ms = now_ms()
            await self._proxy.hold(REPLICATION)
            await asyncio.sleep(random_.uniform(*LAG_S))
            before = await self._lookout.look()
        self._primary.kill()
        died_ms = now_ms()
        await asyncio.sleep(0.005)  # ids of the new history are younger than those of the old
        await asyncio.to_thread(self._replica.promote)
        self._primary, self._replica = self._replica, self._primary
        # Nobody but this look reaches the new server yet: that is what it begins with.
        self._fleet.port = self._primary.port
        await self._lookout.move(self._primary.url)
        unfinished = await self._lookout.unfinished()
        after = await self._lookout.look()
        self._journal.fail_over(
            Failover(cut_ms=cut_ms, died_ms=died_ms, unfinished=unfinished, is_whole=is_whole)
        )
        await self._proxy.aim(self._primary.port)
        self._replica.forget()
        await asyncio.to_thread(self._replica.start)
        await asyncio.to_thread(self._replica.follow, self._port)
        return bool(before and after and after.still(before.first))


async def until_done(
    quota: Quota,
    random_: random.Random,
    messages_done: Callable[[], float],
    on_switched: Callable[[], None],
    fail_over: Callable[[str], Awaitable[bool]],
) -> None:
    """Fail over until everything wanted was done, no faster than messages are sent."""
    while not quota.is_done():
        await asyncio.sleep(random_.uniform(*BETWEEN_S))
        is_ahead = quota.share() > messages_done()
        kind = None if is_ahead else quota.begin(random_, set())
        if kind is None:
            continue
        counts = await fail_over(kind)
        on_switched()
        quota.end(kind, is_done=True, counts=counts)


def now_ms() -> int:
    """By the clock that gives ids, too."""
    return int(time.time() * 1000)
