"""Micro: what the parts of the engine cost by themselves, without Redis and without a socket.

The worker puts its own parts together; the connection on which it commits is replaced by one that
packs, and answers at once that all was done. Timed is one message's way, in CPU time of the thread:

- *route*: from a raw entry to the inbox of its scope
- *turn*: the application takes the message, answers and takes the next
- *encode*: the answer becomes a part of a commit's command
- *pack*: the command becomes bytes (hiredis)
- *settle*: the commit was acknowledged

A second worker carries the same, batch by batch in turn with the first, while its process answers
scrapers and none comes: *metrics* is what it takes to what the first one takes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from wherry.runtime.vitals import Vitals
from wherry.runtime.window import Room
from wherry.worker import Worker

from .applications import echo
from .connection import pack
from .load import payload
from .loop import new_loop
from .spread import spread, told

PARTS = ("route", "turn", "encode", "pack", "settle")
_BATCH = 1_000
_PARTITIONS = 8
_SCOPES = 250
_SIZE_BYTES = 200


def measure(rounds: int) -> dict[str, Any]:
    """Carry so many batches; print and return us for each message, part by part."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        plain, watched = runner.run(_carry(rounds))
    report = {part: spread(_us([one[at] for one in plain])) for at, part in enumerate(PARTS)}
    report["sum"] = spread(_us([sum(one) for one in plain]))
    figures = ", ".join(f"{part} {one['median']:.2f}" for part, one in report.items())
    print(f"micro: us for each message, median of {rounds} batches of {_BATCH}: {figures}")
    ratios = [sum(on) / sum(off) for off, on in zip(plain, watched, strict=True)]
    report["metrics"] = spread(ratios)
    print(
        f"micro: with metrics that nobody asks for, to without: {told(report['metrics'], 3)}, "
        f"{sum(map(sum, watched)) / sum(map(sum, plain)):.3f} of all batches together"
    )
    return report


def _us(seconds: Sequence[float]) -> list[float]:
    return [1e6 * one / _BATCH for one in seconds]


class _Wire:
    """Stands for the connection on which a worker commits."""

    joins_slots = True

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


@dataclass(slots=True, eq=False)
class _Side:
    """A worker whose committer runs, on a wire that answers at once."""

    worker: Worker
    wire: _Wire
    holdings: list[Holding]


async def _carry(rounds: int) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each part of each batch: of a worker as it is, and of one that is measured."""
    plain, watched = _make_side(), _make_side(is_watched=True)
    taken: dict[_Side, list[list[float]]] = {plain: [], watched: []}
    vitals = watched.worker.vitals
    assert vitals is not None
    loop = asyncio.get_running_loop()
    beside = [loop.create_task(_parts(side).committer.run()) for side in taken]
    beside.append(loop.create_task(vitals.pulse()))
    for side in taken:
        await _carry_batch(side, 0)  # makes the instances
    gc.collect()
    gc.disable()
    try:
        for number in range(1, rounds + 1):
            order = [plain, watched] if number % 2 else [watched, plain]
            for side in order:
                taken[side].append(await _carry_batch(side, number))
    finally:
        gc.enable()
        for task in beside:
            task.cancel()
        for side in taken:
            await side.worker._end()
    return taken[plain], taken[watched]


def _parts(side: _Side) -> Any:
    parts = side.worker._parts
    assert parts is not None
    return parts


def _make_side(*, is_watched: bool = False) -> _Side:
    worker = Worker(echo, open_store("memory://micro"), Config())
    wire = _Wire()
    links = Links(*(worker._store.link() for _ in range(3)))
    links.write = cast("Link", wire)
    side = _Side(worker, wire, _take_partitions(worker, links))
    if is_watched:
        worker.vitals = Vitals(worker.worker_id, Config())
        worker._let_watch(links, _parts(side))
    return side


def _take_partitions(worker: Worker, links: Links) -> list[Holding]:
    """Put the worker's parts together, as its `arun` does, and let it own some partitions."""
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


async def _carry_batch(side: _Side, number: int) -> list[float]:
    """One batch on its whole way; seconds of each of the `PARTS`."""
    router = _parts(side).reader._router
    wire, holdings = side.wire, side.holdings
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
