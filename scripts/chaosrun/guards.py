"""Failovers by Redis Sentinel: the primary is killed, sentinels promote its replica by themselves.

Nobody stands between: workers and clients ask the sentinels. The old primary comes back with its
data, and is made a replica.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis

from wherry.broker.wire import Keys

from ..ports import free_port
from .failover import now_ms, until_done
from .journal import Failover, Journal
from .owning import Lookout
from .quota import Quota
from .servers import Server

SERVICE = "chaos"
COUNT = 3
AGREE_S = 60.0
FOLLOW_S = 90.0
LINES = (
    "sentinel down-after-milliseconds {service} 700",
    "sentinel failover-timeout {service} 6000",
)


class Guards:
    """The sentinels of one service.

    Attributes:
        url: of the primary, whoever it is.
    """

    def __init__(self, directory: Path, program: str) -> None:
        self._directory = directory
        self._program = program
        self._ports = [free_port() for _ in range(COUNT)]
        self._processes: list[subprocess.Popen[bytes]] = []
        places = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        self.url = f"redis+sentinel://{places}/{SERVICE}/0"

    def start(self, primary: Server) -> None:
        """Watch a server that has its replica, and wait until each knows the others."""
        for port in self._ports:
            directory = self._directory / f"sentinel-{port}"
            directory.mkdir(parents=True)
            monitor = f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {COUNT // 2 + 1}"
            lines = [f"port {port}", "bind 127.0.0.1", f"dir {directory}", monitor]
            lines += [line.format(service=SERVICE) for line in LINES]
            (directory / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
            with (directory / "sentinel.log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        [self._program, str(directory / "sentinel.conf"), "--sentinel"],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    )
                )  # fmt: skip
        wait_for(lambda: all(map(self._knows_all, self._ports)), "sentinels know each other")

    def wait_named(self, server: Server) -> None:
        """Wait until all of them name a server."""
        wait_for(
            lambda: all(self._named(port) == server.port for port in self._ports),
            "the sentinels name the new primary",
        )

    def kill(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _named(self, port: int) -> int:
        with redis.Redis(port=port, protocol=2) as client:
            answer = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(answer[1]) if answer else 0

    def _knows_all(self, port: int) -> bool:
        with redis.Redis(port=port, protocol=2) as client:
            said = str(client.execute_command("INFO", "sentinel"))
        return "'slaves': 1" in said and f"'sentinels': {COUNT}" in said


def wait_for(is_true: Callable[[], bool], what: str, within_s: float = AGREE_S) -> None:
    """Wait for something that servers do by themselves."""
    until_s = time.monotonic() + within_s
    while True:
        try:
            if is_true():
                return
        except (redis.ConnectionError, redis.TimeoutError):
            pass
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


class GuardedFailovers:
    """Kills the primary again and again."""

    def __init__(
        self,
        servers: tuple[Server, Server],
        guards: Guards,
        lookout: Lookout,
        keys: Keys,
        journal: Journal,
        quota: Quota,
    ) -> None:
        """Begin with a primary and a server that is to follow it."""
        self._primary, self._replica = servers
        self._guards = guards
        self._lookout = lookout
        self._keys = keys
        self._journal = journal
        self._quota = quota

    async def follow(self) -> None:
        """Let the replica follow, and the sentinels watch."""
        await asyncio.to_thread(self._replica.follow, self._primary.port)
        await asyncio.to_thread(self._guards.start, self._primary)

    async def run(
        self,
        random_: random.Random,
        messages_done: Callable[[], float],
        on_switched: Callable[[], None],
    ) -> None:
        """Fail over until everything wanted was done."""
        await until_done(self._quota, random_, messages_done, on_switched, self._fail_over)

    async def _fail_over(self, _: str) -> bool:
        """Counts if entries that stood first before still stand there after."""
        before = await self._lookout.look()
        cut_ms = now_ms()
        self._primary.kill()
        died_ms = now_ms()
        heir = self._replica
        await asyncio.to_thread(
            wait_for,
            lambda: heir.replication().get("master_link_status") == "down",
            "the replica has read all that it was sent",
        )
        # Nobody writes to it before it is promoted: that is what the new history begins with.
        looking = Lookout(heir.url, self._keys)
        unfinished = await looking.unfinished()
        after = await looking.look()
        await looking.aclose()
        await asyncio.to_thread(self._guards.wait_named, heir)
        self._primary, self._replica = heir, self._primary
        await self._lookout.move(heir.url)
        self._journal.fail_over(
            Failover(cut_ms=cut_ms, died_ms=died_ms, unfinished=unfinished, is_whole=False)
        )
        await asyncio.to_thread(self._replica.start)
        await asyncio.to_thread(
            wait_for,
            lambda: self._replica.replication().get("master_link_status") == "up",
            "the old primary follows",
            FOLLOW_S,
        )
        return bool(before and after and after.still(before.first))
