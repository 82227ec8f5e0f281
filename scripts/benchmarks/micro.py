"""Micro: what the parts of the engine cost by themselves, without Redis and without a socket.

The worker puts its own parts together; the connection on which it commits is replaced by one that
packs, and answers at once that all was done. Timed is one message's way, in CPU time of the thread:

- *route*: from a raw entry to the inbox of its scope
- *turn*: the application takes the message, answers and takes the next
- *encode*: the answer becomes a part of a commit's command
- *pack*: the command becomes bytes (hiredis)
- *settle*: the commit was acknowledged
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import msgpack

from wherry.broker.connect import open_store
from wherry.broker.link import Command, Link
from wherry.broker.scripts import Scripts
from wherry.broker.streams import RawEntry
from wherry.broker.wire import Keys, Meta
from wherry.config import Config
from wherry.engine.ledger import Ledger
from wherry.model import EntryId, Partition, Token, partition_of
from wherry.runtime.holding import Holding
from wherry.runtime.parts import Links
from wherry.runtime.window import Room
from wherry.worker import Worker

from .applications import echo
from .connection import pack
from .load import payload
from .loop import new_loop
from .spread import spread

PARTS = ("route", "turn", "encode", "pack", "settle")
_BATCH = 1_000
_PARTITIONS = 8
_SCOPES = 250
_SIZE_BYTES = 200


def measure(rounds: int) -> dict[str, Any]:
    """Carry so many batches; print and return us for each message, part by part."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        taken = runner.run(_carry(rounds))
    report = {part: spread([1e6 * one / _BATCH for one in times]) for part, times in taken.items()}
    report["sum"] = spread([1e6 * sum(one) / _BATCH for one in zip(*taken.values(), strict=True)])
    figures = ", ".join(f"{part} {one['median']:.2f}" for part, one in report.items())
    print(f"micro: us for each message, median of {rounds} batches of {_BATCH}: {figures}")
    return report


class _Wire:
    """Stands for the connection on which a worker commits."""

    def __init__(self) -> None:
        self.asked_s = 0.0
        self.packed_s = 0.0

    async def calls(self, commands: Sequence[Command]) -> list[int]:
        """Pack, and answer that everything was done."""
        self.asked_s = time.thread_time()
        for command in commands:
            pack(tuple(command))
        self.packed_s = time.thread_time()
        return [_operations(command) for command in commands]


def _operations(command: Command) -> int:
    """How many entries a commit call finishes: each is followed by its reply, the one of bytes."""
    return sum(isinstance(argument, bytes) for argument in command)


async def _carry(rounds: int) -> dict[str, list[float]]:
    worker = Worker(echo, open_store("memory://micro"), Config())
    wire = _Wire()
    holdings = _take_partitions(worker, wire)
    parts = worker._parts
    assert parts is not None
    committing = asyncio.get_running_loop().create_task(parts.committer.run())
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    await _carry_batch(worker, wire, holdings, 0)  # makes the instances
    gc.collect()
    gc.disable()
    try:
        for number in range(1, rounds + 1):
            times = await _carry_batch(worker, wire, holdings, number)
            for part, spent_s in zip(PARTS, times, strict=True):
                taken[part].append(spent_s)
    finally:
        gc.enable()
        committing.cancel()
        await worker._end()
    return taken


def _take_partitions(worker: Worker, wire: _Wire) -> list[Holding]:
    """Put the worker's parts together, as its `arun` does, and let it own some partitions."""
    links = Links(*(worker._store.link() for _ in range(3)))
    links.write = cast("Link", wire)
    worker._holdings.partitions = _PARTITIONS
    meta = Meta(partitions=_PARTITIONS, generation="micro")
    worker._parts = worker._build(links, Scripts(memory=True), Keys("micro"), meta)
    worker._tracked.outlet = worker._parts.outbox.take
    worker._clock.set(0)
    holdings = [
        Holding(Ledger(Partition(number), Token("1:micro")), EntryId("0-0"))
        for number in range(_PARTITIONS)
    ]
    for holding in holdings:
        worker._holdings.add(holding)
    return holdings


async def _carry_batch(
    worker: Worker, wire: _Wire, holdings: list[Holding], number: int
) -> list[float]:
    """One batch on its whole way; seconds of each of the `PARTS`."""
    assert worker._parts is not None
    router = worker._parts.reader._router
    room = Room(4_096, 2**26)
    batches = [_raw_entries(number, holding.partition) for holding in holdings]
    started_s = time.thread_time()
    for holding, raw in zip(holdings, batches, strict=True):
        router.route(holding, raw, room)
    routed_s = time.thread_time()
    turned_s, wire.asked_s = routed_s, 0.0
    while any(holding.ledger.in_flight for holding in holdings):
        if not wire.asked_s:
            turned_s = time.thread_time()  # instances have their turn before the committer has its
        await asyncio.sleep(0)
    settled_s = time.thread_time()
    instants_s = (started_s, routed_s, turned_s, wire.asked_s, wire.packed_s, settled_s)
    return [after - before for before, after in pairwise(instants_s)]


def _raw_entries(number: int, partition: Partition) -> list[RawEntry]:
    names = [f"user-{one}" for one in range(_SCOPES)]
    scopes = [one for one in names if partition_of(one, _PARTITIONS) == partition]
    data = payload(_SIZE_BYTES)
    entries: list[RawEntry] = []
    for place in range(_BATCH // _PARTITIONS):
        message = msgpack.packb({"type": "bench.echo", "n": place, "data": data})
        scope = scopes[place % len(scopes)].encode()
        entries.append((b"%d-%d" % (number + 1, place), [b"s", scope, b"m", message]))
    return entries
