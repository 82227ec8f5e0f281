"""Membership with leases that the test answers: nothing is kept that came too late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.e2e.rig import Notes, until
from wherry import Config
from wherry.broker.attempts import pack_row
from wherry.broker.leases import Beat, Claimed, Standing
from wherry.broker.wire import Meta
from wherry.engine.leases import Balance
from wherry.errors import StoreUnavailable
from wherry.model import AttemptsRow, EntryId, Partition, Token
from wherry.runtime.clock import Clock
from wherry.runtime.holding import Holding, Holdings
from wherry.runtime.membership import Membership

CONFIG = Config(lease_s=0.6, beat_s=0.05)
META = Meta(partitions=4, generation="g")


class Leases:
    """Four partitions; calls can be made to wait or to fail."""

    def __init__(self) -> None:
        self.meta = META
        self.now_meta = META
        self.owners = {Partition(number): "" for number in range(4)}
        self.released: list[Partition] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.waiting: list[str] = []
        self.failures: list[str] = []
        self.hints: asyncio.Queue[None] = asyncio.Queue()
        self.beats = 0
        self.standings: list[Standing] = []
        self.others: dict[str, int] = {}

    async def _pass(self, name: str) -> None:
        if name in self.gates:
            self.waiting.append(name)
            await self.gates[name].wait()
        if name in self.failures:
            self.failures.remove(name)
            raise StoreUnavailable(f"{name} failed")

    async def beat(self, fields: dict[str, str], silence_ms: int, standing: Standing) -> Beat:
        self.beats += 1
        self.standings.append(standing)
        await self._pass("beat")
        members = self.others | ({} if standing is Standing.OUT else {"me": 0})
        return Beat(redis_ms=self.beats * 50, members=members, meta=self.now_meta)

    def key_of(self, partition: Partition) -> str:
        return f"lease of {partition}"

    async def survey(self, _held: object = ()) -> dict[Partition, tuple[str, int]]:
        await self._pass("survey")
        return {one: (owner, 500 if owner else 0) for one, owner in self.owners.items()}

    async def claim(self, partitions: Sequence[Partition]) -> list[Claimed]:
        for one in partitions:
            self.owners[one] = "me"
        await self._pass("claim")
        return [
            Claimed(
                partition=one, token=Token(f"1:{one}"), is_unclean=False, last_id=EntryId("0-0")
            )
            for one in partitions
        ]

    async def attempts(self, partitions: Sequence[Partition]) -> list[dict[EntryId, bytes]]:
        await self._pass("attempts")
        row = pack_row(AttemptsRow(attempts=1))
        return [{EntryId("1-1"): row} for _ in partitions]

    async def release(self, partition: Partition, token: Token) -> bool:
        self.released.append(partition)
        self.owners[partition] = ""
        return True

    async def listen(self) -> Leases:
        return self

    async def next(self) -> tuple[str, bytes]:
        await self.hints.get()
        return "released", b""

    def is_request(self, channel: str) -> bool:
        return channel == "control"

    async def aclose(self) -> None:
        pass


class Actions:
    """Implements `wherry.runtime.membership.Actions`."""

    def __init__(self) -> None:
        self.history_changes = 0
        self.handed: list[Holding] = []
        self.is_able = True

    def describe(self) -> dict[str, str]:
        return {}

    def can_claim(self) -> bool:
        return self.is_able

    def heed_pause(self, since_unix_ms: int) -> bool:
        return False

    def asked(self, request: bytes) -> None:
        raise AssertionError("nobody asks")

    async def hand_off(self, holding: Holding) -> None:
        self.handed.append(holding)

    def history_changed(self) -> None:
        self.history_changes += 1

    async def held_changed(self) -> None:
        pass


class Desk:
    def __init__(self) -> None:
        self.leases = Leases()
        self.actions = Actions()
        self.holdings = Holdings()
        self.hooks = Notes()
        self.membership = Membership(
            self.actions,
            self.leases,  # type: ignore[arg-type] - it has what the membership uses
            CONFIG,
            self.holdings,
            Balance("me", 50),
            Clock(),
            self.hooks,
        )

    async def end(self, running: asyncio.Task[Any]) -> None:
        self.membership.is_stopping = self.membership.is_ending = True
        self.membership.hint()
        async with asyncio.timeout(5):
            await running


async def test_free_partitions_are_claimed_with_their_attempts():
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await desk.membership.joined.wait()
        assert [one.partition for one in desk.holdings.all()].sort() is None
        assert len(desk.holdings) == 4
        assert all(one.attempts == {"1-1": AttemptsRow(attempts=1)} for one in desk.holdings.all())
        await desk.end(running)


@pytest.mark.parametrize("moment", ["claim", "attempts"])
async def test_what_is_claimed_while_stopping_is_released(moment: str):
    desk = Desk()
    gate = desk.leases.gates[moment] = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await until(lambda: desk.leases.waiting)
        desk.membership.is_stopping = True
        gate.set()
        await until(lambda: len(desk.leases.released) == 4)
        await desk.end(running)
    assert len(desk.holdings) == 0


@pytest.mark.parametrize("is_ended_at_once", [False, True])
async def test_what_is_claimed_and_could_not_be_taken_in_hand_is_released(is_ended_at_once: bool):
    desk = Desk()
    gate = desk.leases.gates["attempts"] = asyncio.Event()
    desk.leases.failures = ["attempts"]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await until(lambda: desk.leases.waiting)
        desk.membership.is_stopping = True
        desk.membership.is_ending = is_ended_at_once
        gate.set()
        await until(lambda: len(desk.leases.released) == 4)
        await desk.end(running)
    assert desk.hooks.count("beating waits for Redis") == 1
    assert not desk.hooks.count("a partition could not be released and is left to its lease")


@pytest.mark.parametrize("moment", ["beat", "survey", "claim", "attempts"])
async def test_failed_round_is_tried_again(moment: str):
    desk = Desk()
    desk.leases.failures = [moment, moment]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await until(lambda: len(desk.holdings) == 4)
        assert desk.hooks.count("beating waits for Redis") == 2
        await desk.end(running)


async def test_hint_that_comes_while_looking_is_not_lost():
    desk = Desk()
    desk.leases.owners = dict.fromkeys(desk.leases.owners, "other")
    gate = desk.leases.gates["survey"] = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await until(lambda: desk.leases.waiting)
        desk.leases.hints.put_nowait(None)
        await until(desk.leases.hints.empty)
        await asyncio.sleep(0)
        before = asyncio.get_running_loop().time()
        del desk.leases.gates["survey"]
        gate.set()
        await until(lambda: desk.leases.beats == 2)
        assert asyncio.get_running_loop().time() - before < CONFIG.beat_s * 0.8
        await desk.end(running)


async def test_avoided_partition_is_not_claimed():
    desk = Desk()
    desk.holdings.avoided.add(Partition(2))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await desk.membership.joined.wait()
        assert {one.partition for one in desk.holdings.all()} == {0, 1, 3}
        await desk.end(running)


async def test_avoided_partition_that_stays_free_is_told_once():
    desk = Desk()
    desk.holdings.avoided.add(Partition(2))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await desk.membership.joined.wait()
        assert not desk.hooks.count("a partition has no worker"), "others may take it yet"
        await until(lambda: desk.hooks.count("a partition has no worker"))
        beats = desk.leases.beats
        await until(lambda: desk.leases.beats > beats + 4)
        [told] = [data for event, data in desk.hooks.said if "has no worker" in event]
        assert told == {"partition": 2}
        assert not desk.hooks.count("a partition has a worker again")
        desk.holdings.avoided.clear()
        await until(lambda: len(desk.holdings) == 4)
        assert desk.hooks.count("a partition has a worker again") == 1
        await desk.end(running)


async def test_new_generation_is_said_loudly_and_adopted():
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await desk.membership.joined.wait()
        desk.leases.now_meta = Meta(partitions=16, generation="new")
        await until(lambda: desk.actions.history_changes)
        await until(lambda: desk.leases.beats > 4)
        assert desk.hooks.count("Redis lost its data") == 1
        assert desk.holdings.partitions == 16
        assert desk.leases.meta == desk.leases.now_meta
        await desk.end(running)


async def test_worker_that_stops_is_left_out_while_it_still_beats():
    """So that the others claim each partition as soon as it is released."""
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await desk.membership.joined.wait()
        desk.membership.is_stopping = True
        desk.membership.hint()
        await until(lambda: desk.leases.standings[-2:] == [Standing.OUT] * 2)
        await desk.end(running)


async def test_worker_whose_reads_are_not_answered_hands_everything_on_and_comes_back():
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await until(lambda: len(desk.holdings) == 4)
        desk.actions.is_able = False
        await until(lambda: len(desk.actions.handed) == 4)
        assert desk.leases.standings[-1] is Standing.OUT
        for holding in desk.actions.handed:
            desk.holdings.remove(holding)
            desk.leases.owners[holding.partition] = ""
        beats = desk.leases.beats
        await until(lambda: desk.leases.beats > beats + 4)
        assert len(desk.holdings) == 0
        desk.actions.is_able = True
        await until(lambda: len(desk.holdings) == 4)
        await desk.end(running)


async def test_worker_whose_part_was_given_away_joins_anew_when_it_can_claim():
    desk = Desk()
    desk.leases.others = {"other": 0}
    desk.holdings.avoided |= {Partition(number) for number in range(4)}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.membership.run())
        await until(lambda: desk.leases.beats > 8)
        assert set(desk.leases.standings) == {Standing.IN}, "it could not claim yet"
        desk.leases.owners = dict.fromkeys(desk.leases.owners, "other")
        desk.holdings.avoided.clear()
        await until(lambda: Standing.ANEW in desk.leases.standings)
        await desk.end(running)
