"""Reader: one blocking read over all partitions held, from cursors in memory.

Reading changes nothing in Redis. After any doubt the partition is read from its beginning and
what is in hand is skipped. Without room nothing is read: Redis is the buffer.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Protocol

from ..broker.connect import Link
from ..broker.streams import History, read_streams
from ..broker.wire import Keys
from ..config import Config
from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from ..hooks import Hooks
from ..model import EntryId
from .holding import Holding, Holdings
from .router import Router
from .window import Window

MAX_COUNT = 256
MAX_PAUSE_S = 2.0
RECHECK_S = 60.0
UNBLOCK_PAUSE_S = 0.005


class Gate(Protocol):
    """What the reader asks of the worker."""

    def has_room(self) -> bool:
        """Whether the pool takes another scope."""
        ...

    def history_changed(self) -> None:
        """The server's data may have gone back in time."""
        ...


@dataclass(slots=True, eq=False)
class Reads:
    """Which reads are on their way.

    Attributes:
        sent: reads sent so far.
        answered: reads answered so far, or whose connection is closed.
        sent_at_s: monotonic time at which the read under way was sent, 0.0 if none is.
    """

    sent: int = 0
    answered: int = 0
    sent_at_s: float = 0.0


class Reader:
    """Reads for one worker."""

    def __init__(
        self,
        links: tuple[Link, Link],
        config: Config,
        holdings: Holdings,
        reads: Reads,
        router: Router,
        gate: Gate,
        hooks: Hooks,
    ) -> None:
        """Read with a connection of its own.

        Args:
            links: the reading one, and one for commands beside it.
            config: bounds.
            holdings: what to read.
            reads: counted here.
            router: gets what was read.
            gate: the worker's say.
            hooks: reports.
        """
        self._links = links
        self._history = History(*links)
        self._keys = Keys(config.namespace)
        self._config = config
        self._holdings = holdings
        self._reads = reads
        self._router = router
        self._gate = gate
        self._hooks = hooks
        self._window = Window(config, holdings)
        self._reading: dict[Holding, int] = {}
        self._patience: asyncio.Timeout

    async def run(self) -> None:
        """Read and route, for ever."""
        pause_s = 0.0
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recheck(), name="recheck")
            tasks.create_task(self._watch(), name="watch")
            while True:
                try:
                    await self._turn()
                    pause_s = 0.0
                except (StoreUnavailable, StoreRefused, StoreError) as error:
                    pause_s = min(MAX_PAUSE_S, 2 * pause_s or 0.05)
                    self._hooks.warn(
                        "reading waits for Redis", reason=str(error), duration_s=pause_s
                    )
                    self._read_anew()
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    def _read_anew(self) -> None:
        for holding in self._holdings.all():
            holding.deferred.clear()
            holding.ledger.rewind()

    async def _turn(self) -> None:
        readable, count = self._choose()
        if not readable:
            await self._holdings.changed.wait()
            # A set event does not suspend, and `_watch` must run to clear it.
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(None) as self._patience:
                self._reading = readable
                await self._read(readable, count)
        except TimeoutError:
            # The watch has cut this read short, and with it its connection.
            self._read_anew()
        finally:
            self._reading = {}

    async def _watch(self) -> None:
        """Cut a blocking read short when it waits for too little."""
        while True:
            await self._holdings.changed.wait()
            self._holdings.changed.clear()
            if self._reading and self._is_outdated(self._reading):
                await self._interrupt(self._reads.sent)

    def _choose(self) -> tuple[dict[Holding, int], int]:
        """What to read, with the number of rewinds of each, and how many entries of each."""
        free = self._window.free()
        if not free or not self._gate.has_room():
            return {}, 0
        readable = [one for one in self._holdings.all() if self._window.has_space(one)]
        # One entry for each stream is the least that can be asked for. The router takes what the
        # window has room for, in this order: each comes to be the first, or the last would starve.
        first = self._reads.sent % max(1, len(readable))
        in_order = {one: one.ledger.rewinds for one in (*readable[first:], *readable[:first])}
        return in_order, max(1, min(MAX_COUNT, free // max(1, len(readable))))

    def _is_outdated(self, reading: dict[Holding, int]) -> bool:
        """Whether a blocking read leaves out a partition, or waits behind an old cursor."""
        now = {one for one in self._holdings.all() if self._window.has_space(one)}
        if not now.issubset(reading):
            return self._gate.has_room()
        return any(
            holding.ledger.rewinds != rewinds or holding.is_lost or holding.ledger.is_draining
            for holding, rewinds in reading.items()
        )

    async def _read(self, readable: dict[Holding, int], count: int) -> None:
        by_key = {self._keys.entries(one.ledger.partition): one for one in readable}
        cursors = {key: holding.ledger.cursor for key, holding in by_key.items()}
        self._reads.sent += 1
        self._reads.sent_at_s = time.monotonic()
        try:
            answer = await read_streams(
                self._links[0],
                cursors,
                count=count,
                block_ms=int(self._config.block_s * 1000),
            )
        finally:
            self._reads.answered = self._reads.sent
            self._reads.sent_at_s = 0.0
        is_new, is_other = await self._history.look()
        if is_new:
            self._read_anew()
        if is_other:
            self._gate.history_changed()
        for key, entries in answer.items():
            holding = by_key[key]
            if holding.is_lost or holding.ledger.is_draining:
                continue
            if holding.ledger.rewinds != readable[holding]:
                continue
            self._router.route(holding, entries)
        for holding in self._holdings.all():
            holding.ledger.answered(self._reads.answered)

    async def _interrupt(self, read: int) -> None:
        """Let a blocking read return at once; where that is forbidden, close its connection."""
        try:
            while self._reads.answered < read:
                client_id = self._links[0].client_id
                if client_id is None:
                    break
                if await self._links[1].call("CLIENT", "UNBLOCK", client_id) == 1:
                    return
                # It was not blocked: either answered already, or not yet seen by the server.
                await asyncio.sleep(UNBLOCK_PAUSE_S)
        except (StoreError, StoreRefused, StoreUnavailable):
            pass
        if self._reads.answered < read and self._reading:
            # Once for each read: a timeout that is about to strike cannot be set again.
            self._reading = {}
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def _recheck(self) -> None:
        """Once a minute look whether a quiet partition holds what the cursor has passed."""
        while True:
            await asyncio.sleep(RECHECK_S)
            quiet = [
                holding
                for holding in self._holdings.all()
                if not holding.ledger.in_flight and not holding.deferred.count
            ]
            cursors: list[EntryId] = [holding.ledger.cursor for holding in quiet]
            keys = [self._keys.entries(holding.partition) for holding in quiet]
            try:
                sizes = await self._links[1].calls([("XLEN", key) for key in keys])
            except WherryError:
                continue
            for holding, cursor, size in zip(quiet, cursors, sizes, strict=True):
                if size and holding.ledger.cursor == cursor and not holding.ledger.in_flight:
                    holding.ledger.rewind()
                    self._holdings.changed.set()
