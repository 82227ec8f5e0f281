"""PartitionReader: reads one partition over a connection of its own, from a cursor in memory.

The law is that of `wherry.runtime.reader`: reading changes nothing in Redis, after any doubt the
partition is read from its beginning, and without room nothing is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..broker.slot_link import SlotLink
from ..broker.streams import RawEntry, read_streams
from ..config import Config
from ..errors import StoreError, StoreRefused, StoreUnavailable
from ..hooks import Hooks
from .allowance import Allowance
from .holding import Holding
from .outage import Outage
from .reader import ANSWER_WITHIN_S, TRICKLE, Gate
from .reads import Reads
from .router import Router


class Bell(Protocol):
    """Tells that something has changed."""

    async def wait(self) -> None:
        """Wait until room, or what is held, has changed."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What the readers of one worker share.

    Attributes:
        config: bounds.
        allowance: divides the window.
        router: gets what was read.
        gate: the worker's say.
        bell: wakes those that wait for room.
        hooks: reports.
        troubled: the outages that are met now.
    """

    config: Config
    allowance: Allowance
    router: Router
    gate: Gate
    bell: Bell
    hooks: Hooks
    troubled: set[Outage]


class PartitionReader:
    """Reads one holding until it is cancelled."""

    __slots__ = (
        "_around", "_connects", "_holding", "_is_backlogged", "_is_blocking", "_key", "_link",
        "_outage", "_reads", "_rewinds",
    )  # fmt: skip

    def __init__(
        self, around: Surroundings, holding: Holding, key: str, link: SlotLink, reads: Reads
    ) -> None:
        """Read a stream by its key over a link that stays with it; the reads are counted."""
        self._around = around
        self._holding = holding
        self._key = key
        self._link = link
        self._reads = reads
        self._connects = 0
        self._is_backlogged = False
        self._is_blocking = False
        self._rewinds = 0  # of the ledger when the read under way was sent
        self._outage = Outage("reading", around.hooks, around.troubled)

    async def run(self) -> None:
        """Read and route, for ever; raises as `Outage.wait` does."""
        try:
            while True:
                try:
                    await self._turn()
                    self._outage.over()
                except StoreError as error:
                    self._leave_out(error)
                except (StoreUnavailable, StoreRefused) as error:
                    if self._is_outdated():
                        continue  # it was cut for that
                    self._around.allowance.away.add(self._holding)
                    self._read_anew()
                    await self._outage.wait(error)
        finally:
            self._around.allowance.back(self._holding)
            self._around.allowance.away.discard(self._holding)
            self._outage.leave()

    def look(self) -> None:
        """Cut a read that waits behind an old cursor."""
        if self._is_blocking and self._is_outdated():
            self._is_blocking = False
            self._link.cut()

    def _is_outdated(self) -> bool:
        return self._rewinds != self._holding.ledger.rewinds

    def _read_anew(self) -> None:
        self._holding.deferred.clear()
        self._holding.ledger.rewind()

    async def _turn(self) -> None:
        count = self._allow()
        if not count:
            if self._reads.waiting_since_s:
                await self._read("$", 1, block_ms=None)  # only to see that reads are answered
            else:
                await self._around.bell.wait()
            return
        ledger = self._holding.ledger
        self._rewinds = ledger.rewinds
        # After one that stayed without an answer the next one does not block: it is a proof.
        is_brief = self._is_backlogged or self._reads.waiting_since_s
        block_ms = None if is_brief else int(self._around.config.block_s * 1000)
        try:
            entries = await self._read(ledger.cursor, count, block_ms=block_ms)
        finally:
            self._around.allowance.back(self._holding)
        before, self._connects = self._connects, self._link.connects
        if 0 < before < self._connects:
            self._read_anew()
        self._route(entries, count)
        if 0 < len(entries) < min(count, TRICKLE):
            await self._gather()

    def _allow(self) -> int:
        around = self._around
        if not around.gate.has_room():
            return 0
        return around.allowance.ask(
            self._holding,
            is_backlogged=self._is_backlogged,
            is_settling=around.gate.is_settling(),
        )

    async def _read(self, cursor: str, count: int, *, block_ms: int | None) -> Sequence[RawEntry]:
        reads = self._reads
        reads.begin()
        self._is_blocking = block_ms is not None
        is_answered = False
        try:
            found = await read_streams(
                self._link, {self._key: cursor}, count=count, block_ms=block_ms
            )
            is_answered = True
            self._around.allowance.away.discard(self._holding)
        except StoreError:
            is_answered = True
            raise
        finally:
            self._is_blocking = False
            reads.end(is_answered=is_answered, block_s=self._around.config.block_s)
        return found.get(self._key, ())

    def _route(self, entries: Sequence[RawEntry], count: int) -> None:
        holding, around = self._holding, self._around
        ledger = holding.ledger
        if not (
            around.gate.is_shut() or holding.is_lost or ledger.is_draining or self._is_outdated()
        ):
            room = around.allowance.room()
            has_more = bool(entries) and not around.router.route(holding, entries, room)
            self._is_backlogged = has_more or len(entries) >= count
            around.allowance.note()
        if ledger.tombstones:
            ledger.answered(self._reads.answered)

    async def _gather(self) -> None:
        """Wait for the answer to what the last few entries caused, once; see `Reader`."""
        around, ledger = self._around, self._holding.ledger
        await asyncio.sleep(0)  # those that were woken have their turn
        if ledger.in_flight and around.gate.is_settling():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    while ledger.in_flight and around.gate.is_settling():
                        await around.bell.wait()

    def _leave_out(self, error: StoreError) -> None:
        holding = self._holding
        holding.ledger.mark(is_unreadable=True)
        self._around.hooks.warn(
            "an input stream was overwritten by something else and is not read; "
            "rename or delete its key",
            partition=holding.partition,
            key=self._key,
            reason=str(error),
        )
