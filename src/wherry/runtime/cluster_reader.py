"""ClusterReader: one blocking read for each partition held; two slots never fit into one.

So a node that is away pauses only the partitions that it serves. A quiet partition costs one
connection, and one read every ``block_s``.
"""

from __future__ import annotations

import asyncio
from typing import cast

from ..broker.link import Link
from ..broker.slot_link import SlotLink, SlotLinks
from ..broker.wire import Keys
from ..config import Config
from ..hooks import Hooks
from .allowance import Allowance
from .holding import Holding, Holdings
from .partition_reader import PartitionReader, Surroundings
from .reader import Gate
from .reads import Reads, SeparateReads
from .recheck import recheck
from .router import Router


class _Bell:
    """Wakes all who wait, in the order in which they came."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """See `wherry.runtime.partition_reader.Bell`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def ring(self) -> None:
        """Wake them."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class ClusterReader:
    """Reads for one worker."""

    __slots__ = (
        "_around",
        "_bell",
        "_command",
        "_ears",
        "_holdings",
        "_keys",
        "_links",
        "_running",
    )

    def __init__(
        self,
        links: SlotLinks,
        command: Link,
        config: Config,
        holdings: Holdings,
        router: Router,
        gate: Gate,
        hooks: Hooks,
    ) -> None:
        """Read with a connection for each partition.

        Args:
            links: makes them.
            command: for commands beside the reads.
            config: bounds.
            holdings: what to read; their ears are those of reads that go apart.
            router: gets what was read.
            gate: the worker's say.
            hooks: reports.
        """
        self._bell = _Bell()
        self._links = links
        self._command = command
        self._keys = Keys(config.namespace)
        self._holdings = holdings
        self._ears = cast("SeparateReads", holdings.ears)
        self._running: dict[Holding, tuple[PartitionReader, asyncio.Task[None]]] = {}
        self._around = Surroundings(
            config, Allowance(config, holdings), router, gate, self._bell, hooks, set()
        )

    async def run(self) -> None:
        """Read and route, for ever.

        Raises:
            StoreRefused: in a group; a login or a right was refused for too long.
        """
        async with asyncio.TaskGroup() as tasks:
            rechecking = recheck(self._command, self._keys, self._holdings)
            tasks.create_task(rechecking, name="recheck")
            while True:
                self._holdings.changed.clear()
                self._look(tasks)
                self._bell.ring()
                await self._holdings.changed.wait()

    def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to read what is held now, and end what is held no longer."""
        for holding, (reader, task) in list(self._running.items()):
            if holding.is_lost or holding.ledger.is_draining:
                del self._running[holding]
                task.cancel()
            else:
                reader.look()
        if len(self._running) == len(self._holdings):
            return
        for holding in self._holdings.all():
            if holding not in self._running and not holding.ledger.is_draining:
                key = self._keys.entries(holding.partition)
                link = self._links.of(key)
                reads = self._ears.begin(holding.partition)
                reader = PartitionReader(self._around, holding, key, link, reads)
                name = f"read:{holding.partition}"
                task = tasks.create_task(self._read(holding, reader, link, reads), name=name)
                self._running[holding] = (reader, task)

    async def _read(
        self, holding: Holding, reader: PartitionReader, link: SlotLink, reads: Reads
    ) -> None:
        try:
            await reader.run()
        finally:
            await self._links.close(link)
            self._ears.end(holding.partition, reads)
