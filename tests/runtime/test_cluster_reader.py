"""Partitions that are read apart: what happens to one of them does not concern the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.rig import Notes, until
from tests.runtime.test_reader import OpenGate
from wherry import Config
from wherry.engine.ledger import Ledger
from wherry.errors import StoreError, StoreUnavailable
from wherry.model import ORIGIN, EntryId, Partition, Token
from wherry.runtime.cluster_reader import ClusterReader
from wherry.runtime.holding import Holding, Holdings
from wherry.runtime.reads import MARGIN_S, SeparateReads

Entries = list[tuple[bytes, list[bytes]]]


class Read:
    """One read under way."""

    def __init__(self, command: tuple[Any, ...]) -> None:
        self.cursor = command[-1]
        self.is_blocking = "BLOCK" in command
        self.key = command[-2]
        self.answer: asyncio.Future[Entries] = asyncio.get_running_loop().create_future()

    def bring(self, *numbers: int) -> None:
        self.answer.set_result([(f"{number}-0".encode(), [b"s", b"x"]) for number in numbers])


class Link:
    """Answers as it is told to; the connection is there."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.connects = 1
        self.reads: list[Read] = []
        self.failure: Exception | None = None
        self.is_closed = False

    @property
    def read(self) -> Read:
        return self.reads[-1]

    async def call(self, *command: Any) -> Any:
        read = Read(command)
        self.reads.append(read)
        if self.failure is not None:
            raise self.failure
        found = await read.answer
        return [(read.key.encode(), found)] if found else None

    def cut(self) -> None:
        self.read.answer.set_exception(StoreUnavailable("cut"))


class Links:
    def __init__(self) -> None:
        self.made: dict[str, Link] = {}

    def of(self, key: str) -> Link:
        link = self.made[key] = Link(key)
        return link

    async def close(self, link: Link) -> None:
        link.is_closed = True


class Router:
    """Takes in hand what is not known yet."""

    def __init__(self) -> None:
        self.routed: list[tuple[Partition, str]] = []

    def route(self, holding: Holding, raw: Entries, room: Any) -> bool:
        for raw_id, _ in raw:
            entry_id = EntryId(raw_id.decode())
            if not holding.ledger.knows(entry_id):
                holding.ledger.hold(entry_id, 1)
                self.routed.append((holding.partition, entry_id))
            holding.ledger.take({}, entry_id)
        return True


class Desk:
    def __init__(self) -> None:
        self.links = Links()
        self.holdings = Holdings()
        self.ears = self.holdings.ears = SeparateReads()
        self.router = Router()
        self.hooks = Notes()
        self.config = Config(namespace="test")
        links: Any = self.links
        router: Any = self.router
        command: Any = Link("")
        self.reader = ClusterReader(
            links, command, self.config, self.holdings, router, OpenGate(), self.hooks
        )

    async def hold(self, number: int) -> tuple[Holding, Link]:
        """Own a partition, and wait until it is read."""
        ledger = Ledger(partition=Partition(number), token=Token("1:x"))
        holding = Holding(ledger, ORIGIN)
        self.holdings.add(holding)
        key = f"{{test:{number}}}:in"
        await until(lambda: key in self.links.made and self.links.made[key].reads)
        return holding, self.links.made[key]

    def finish(self, holding: Holding, number: int) -> None:
        """The commit of an entry is acknowledged, as `Settlement` takes it."""
        reads = self.ears.of(holding.partition)
        holding.ledger.finish([EntryId(f"{number}-0")], reads.sent, reads.answered)


@asynccontextmanager
async def reading() -> AsyncGenerator[Desk]:
    desk = Desk()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(desk.reader.run())
        yield desk
        task.cancel()
    assert all(link.is_closed for link in desk.links.made.values())


async def test_each_partition_is_read_by_itself():
    async with reading() as desk:
        (zero, first), (_, second) = await desk.hold(0), await desk.hold(1)
        first.read.bring(1, 2)
        await until(lambda: len(first.reads) == 2)
        assert first.read.cursor == "2-0"
        assert len(second.reads) == 1, "it stays blocked, and costs nothing"
        assert desk.router.routed == [(0, "1-0"), (0, "2-0")]
        assert zero.ledger.in_flight == 2


async def test_partition_that_is_handed_on_is_read_no_longer():
    async with reading() as desk:
        (zero, first), (one, second) = await desk.hold(0), await desk.hold(1)
        zero.ledger.drain()
        desk.holdings.changed.set()
        await until(lambda: first.is_closed)
        desk.holdings.remove(one)
        await until(lambda: second.is_closed)


async def test_blocking_read_behind_an_old_cursor_is_cut():
    async with reading() as desk:
        zero, link = await desk.hold(0)
        link.read.bring(5)
        await until(lambda: len(link.reads) == 2)
        zero.ledger.forget(EntryId("5-0"))
        zero.ledger.rewind()
        desk.holdings.changed.set()
        await until(lambda: len(link.reads) == 3)
        assert link.read.cursor == ORIGIN
        link.read.bring(5)
        await until(lambda: len(desk.router.routed) == 2)
        assert not desk.hooks.said, "that is no trouble"


async def test_entry_that_was_finished_while_a_read_was_under_way_is_not_delivered_again():
    """The read was executed before the commit, and is parsed after it."""
    async with reading() as desk:
        zero, link = await desk.hold(0)
        link.read.bring(1)
        await until(lambda: len(link.reads) == 2)
        zero.ledger.rewind()
        desk.holdings.changed.set()
        await until(lambda: link.read.cursor == ORIGIN)
        desk.finish(zero, 1)
        link.read.bring(1, 2)
        await until(lambda: zero.ledger.cursor == "2-0")
        assert desk.router.routed == [(0, "1-0"), (0, "2-0")]


async def test_tombstones_wait_for_the_reads_of_their_own_partition_only():
    async with reading() as desk:
        (zero, link), (_, other) = await desk.hold(0), await desk.hold(1)
        link.read.bring(1)
        await until(lambda: len(link.reads) == 2)
        zero.ledger.is_read_anew = True
        desk.finish(zero, 1)
        assert zero.ledger.tombstones
        link.read.bring(2)
        await until(lambda: len(link.reads) == 3)
        assert not zero.ledger.tombstones
        assert not other.read.answer.done()


async def test_node_that_is_away_is_told_of_once_and_the_others_go_on():
    async with reading() as desk:
        held = [await desk.hold(number) for number in range(3)]
        (zero, first), (_, second), (_, third) = held
        first.failure = second.failure = StoreUnavailable("away")
        first.cut()
        second.cut()
        await until(lambda: len(first.reads) > 3 and len(second.reads) > 3)
        third.read.bring(1)
        await until(lambda: len(third.reads) == 2)
        assert len(first.reads) < 10, "with longer and longer pauses"
        assert [event for event, _ in desk.hooks.warned] == ["reading waits for Redis"]
        assert zero.ledger.cursor == ORIGIN
        first.failure = second.failure = None
        tried = len(first.reads), len(second.reads)
        await until(lambda: len(first.reads) > tried[0] and len(second.reads) > tried[1])
        first.read.bring(1)
        second.read.bring(1)
        await until(lambda: len(desk.router.routed) == 3)


async def test_stream_that_was_overwritten_stops_its_own_partition_alone():
    async with reading() as desk:
        (zero, first), (_, second) = await desk.hold(0), await desk.hold(1)
        first.read.answer.set_exception(StoreError("WRONGTYPE"))
        await until(lambda: zero.ledger.is_unreadable)
        second.read.bring(1)
        await until(lambda: len(second.reads) == 2)
        assert len(first.reads) == 1
        assert desk.hooks.count("an input stream was overwritten") == 1


@pytest.mark.parametrize("is_other", [False, True])
async def test_only_a_partition_whose_read_is_overdue_is_deaf(*, is_other: bool):
    async with reading() as desk:
        await desk.hold(0)
        if is_other:
            await desk.hold(1)
        limit_s = desk.config.block_s + MARGIN_S
        reads = desk.ears.of(Partition(0))
        now_s = reads.waiting_since_s + limit_s + 0.1
        if is_other:
            desk.ears.of(Partition(1)).waiting_since_s += 1.0
        assert desk.ears.is_deaf(Partition(0), now_s, limit_s)
        assert desk.ears.is_overdue(now_s, limit_s) is not is_other
        if is_other:
            assert not desk.ears.is_deaf(Partition(1), now_s, limit_s)
