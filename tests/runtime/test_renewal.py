"""Renewal keeps leases while the loop is busy, and lets them go when nobody would notice a loss.

The link is the test's own: it counts renewals, and answers as it is told.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e.rig import Notes, until
from wherry import Config
from wherry.broker.scripts import Script
from wherry.broker.wire import Keys
from wherry.engine.ledger import Ledger
from wherry.errors import StoreError, StoreUnavailable
from wherry.model import ORIGIN, Partition, Token
from wherry.runtime.duties import Duties
from wherry.runtime.holding import Holding, Holdings
from wherry.runtime.reads import MARGIN_S, Reads, SeparateReads, SharedReads
from wherry.runtime.renewal import Held, Renewal

LEASE_S = 0.6
BEAT_S = 0.05
HELD: Held = ((Partition(0), Token("1:a")), (Partition(3), Token("1:b")))


class Store:
    """A store of which only the blocking link is asked for; it answers on the thread."""

    topology = None

    def __init__(self) -> None:
        self.renewals: list[tuple[float, Sequence[Any]]] = []
        self.answer: Callable[[Sequence[Any]], Any] = lambda tokens: [1] * len(tokens)
        self.threads: set[str] = set()
        self.closed = 0
        self.revived = 0
        self.topology: Any = None
        self.away: set[str] = set()

    def sync_link(self, *, answer_timeout_s: float) -> Store:
        return self

    def call(self, *command: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        count = command[2]
        tokens = command[4 + count :]
        self.renewals.append((time.monotonic(), tokens))
        return self.answer(command if command[0] == "EVAL" else tokens)

    def calls(self, commands: Sequence[Any]) -> list[Any]:
        """As in a cluster: a command for each lease, of which some nodes are away."""
        return [
            StoreUnavailable("away") if command[4 + 1] in self.away else self.call(*command)
            for command in commands
        ]

    def revive(self) -> None:
        self.revived += 1

    def close(self) -> None:
        self.closed += 1

    def since(self, at_s: float) -> list[float]:
        """Seconds after an instant at which leases were renewed."""
        return [when_s - at_s for when_s, _ in self.renewals if when_s > at_s]


class Desk:
    def __init__(self) -> None:
        self.store = Store()
        self.reads = Reads()
        self.hooks = Notes()
        self.lost: list[tuple[Partition, Token]] = []
        self.config = Config(lease_s=LEASE_S, beat_s=BEAT_S, block_s=0.2)
        store: Any = self.store
        self.renewal = Renewal(
            store, Script("renew"), Keys("test"), self.config, self.hooks, SharedReads(self.reads)
        )
        self.renewal.on_lost = self.lost.extend


@asynccontextmanager
async def renewing() -> AsyncGenerator[Desk]:
    desk = Desk()
    await desk.renewal.look_after(HELD)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(desk.renewal.run())
        await until(lambda: desk.store.renewals)
        yield desk
        task.cancel()
    assert desk.store.closed == 1
    assert desk.store.threads == {"renewal"}


def block(for_s: float) -> None:
    """What an application does to the event loop that computes, or calls what blocks."""
    time.sleep(for_s)


async def test_leases_are_renewed_while_the_loop_is_busy():
    async with renewing() as desk:
        started_s = time.monotonic()
        block(LEASE_S / 2)
        assert len(desk.store.since(started_s)) >= 2
        assert desk.store.renewals[-1][1] == ("1:a", "1:b")


async def test_leases_are_let_go_when_the_loop_has_not_turned_within_one():
    """Or a worker that computes for ever would keep its partitions for ever."""
    async with renewing() as desk:
        started_s = time.monotonic()
        block(3 * LEASE_S)
        assert max(desk.store.since(started_s)) <= LEASE_S + 2 * BEAT_S
        ended_s = time.monotonic()
        await until(lambda: desk.store.since(ended_s))


async def test_leases_are_let_go_when_a_read_stays_without_an_answer():
    async with renewing() as desk:
        desk.reads.begin()
        limit_s = desk.config.block_s + MARGIN_S
        desk.reads.waiting_since_s -= limit_s - 0.1
        started_s = time.monotonic()
        await until(lambda: desk.store.since(started_s))
        await until(lambda: time.monotonic() - started_s > 0.5)
        assert max(desk.store.since(started_s)) < 0.1 + 2 * BEAT_S
        desk.reads.end(is_answered=True, block_s=desk.config.block_s)
        ended_s = time.monotonic()
        await until(lambda: desk.store.since(ended_s))


async def test_read_that_was_not_sent_on_purpose_keeps_nobody_from_renewing():
    async with renewing() as desk:
        assert desk.reads.waiting_since_s == 0.0
        started_s = time.monotonic()
        await until(lambda: len(desk.store.since(started_s)) > 4)


async def test_answer_that_the_busy_loop_has_not_read_is_not_missed():
    """It may lie in the socket: what counts is how long it was missing when the loop turned."""
    async with renewing() as desk:
        desk.reads.begin()
        desk.reads.waiting_since_s -= desk.config.block_s + MARGIN_S - LEASE_S / 4
        started_s = time.monotonic()
        block(LEASE_S / 2)
        assert max(desk.store.since(started_s)) > LEASE_S / 4 + BEAT_S


@pytest.mark.parametrize(("kept", "lost"), [([1, 0], HELD[1:]), ([0, 0], HELD), ([1, 1], ())])
async def test_what_was_lost_is_told_in_the_loop(kept: list[int], lost: Held):
    async with renewing() as desk:
        desk.store.answer = lambda _: kept
        count = len(desk.store.renewals)
        await until(lambda: len(desk.store.renewals) > count + 1)
        assert set(desk.lost) == set(lost)


def test_loss_of_a_former_tenure_is_not_one_of_the_present():
    """The answer was under way while the partition was lost and claimed again."""
    lost: list[Holding] = []
    settlement: Any = SimpleNamespace(lose=lambda holding, _: lost.append(holding))
    renewer: Any = SimpleNamespace()
    none: Any = None
    holdings = Holdings()
    now = Holding(Ledger(partition=Partition(3), token=Token("2:b")), ORIGIN)
    holdings.add(now)
    duties = Duties(none, holdings, settlement, none, renewer, Config())
    duties.lost(HELD)
    assert lost == []
    duties.lost([(Partition(3), Token("2:b"))])
    assert lost == [now]


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), StoreError("odd")])
async def test_renewal_that_fails_is_tried_again(error: Exception):
    def fail(_: Sequence[Any]) -> Any:
        raise error

    async with renewing() as desk:
        desk.store.answer = fail
        count = len(desk.store.renewals)
        await until(lambda: len(desk.store.renewals) > count + 2)
        assert desk.lost == []
        assert desk.hooks.count("leases could not be renewed") >= 1
        assert (desk.store.revived > 0) == isinstance(error, StoreUnavailable)
        desk.store.answer = lambda tokens: [1] * len(tokens)


async def test_script_that_the_server_forgot_is_sent_whole():
    def forgot(command: Sequence[Any]) -> Any:
        if command[0] == "EVAL":
            return [1, 0]
        raise StoreError("NOSCRIPT No matching script")

    async with renewing() as desk:
        desk.store.answer = forgot
        await until(lambda: desk.lost)
        assert set(desk.lost) == set(HELD[1:])


async def test_who_blocks_the_loop_is_told_once_while_it_does():
    async with renewing() as desk:
        said: list[int] = []

        async def handler() -> None:
            block(0.9 * LEASE_S)
            said.append(desk.hooks.count("event loop is blocked"))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(handler(), name="instance:user-7")
        assert said == [1]
        [data] = [data for event, data in desk.hooks.said if "event loop is blocked" in event]
        assert data["scope"] == "user-7"
        assert str(data["where"]).startswith(__file__)
        assert str(data["where"]).endswith("in block")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(handler(), name="refresh")
        assert said == [1, 2]
        assert desk.hooks.said[-1][1]["task"] == "refresh"


async def test_a_loop_that_turns_is_not_said_to_be_blocked():
    async with renewing() as desk:
        count = len(desk.store.renewals)
        await until(lambda: len(desk.store.renewals) > count + 6)
        assert desk.hooks.count("event loop is blocked") == 0


async def test_node_that_is_away_costs_the_leases_of_no_other():
    desk = Desk()
    desk.store.topology = object()
    desk.store.away = {"1:a"}
    desk.store.answer = lambda tokens: [int(token != "1:c") for token in tokens]
    await desk.renewal.look_after((*HELD, (Partition(7), Token("1:c"))))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(desk.renewal.run())
        await until(lambda: desk.lost)
        task.cancel()
    assert set(desk.lost) == {(Partition(7), Token("1:c"))}, "of the first nothing is known"
    assert {tokens for _, tokens in desk.store.renewals} == {("1:b",), ("1:c",)}


async def test_partition_that_is_not_read_is_let_go_alone():
    desk = Desk()
    desk.store.topology = object()
    ears = SeparateReads()
    desk.renewal._ears = ears
    reads = ears.begin(Partition(0))
    reads.begin()
    reads.waiting_since_s -= desk.config.block_s + MARGIN_S + 1
    ears.begin(Partition(3)).begin()
    await desk.renewal.look_after(HELD)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(desk.renewal.run())
        await until(lambda: len(desk.store.renewals) > 3)
        task.cancel()
    assert {tokens for _, tokens in desk.store.renewals} == {("1:b",)}
