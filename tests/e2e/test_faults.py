"""Answers that are lost, late or odd: effects stay exactly once and in order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from tests.e2e.flaky import Calls, FlakyStore, LateReads, lost
from tests.e2e.rig import Notes, echo, rig, until, working
from tests.e2e.test_durable import DURABLE, running_totals, totals
from wherry import Worker
from wherry.broker.link import Command
from wherry.errors import StoreUnavailable
from wherry.model import EntryId
from wherry.runtime.reader import Reader


class LosesAnswers(FlakyStore):
    """Carries commits out and loses every other answer, or loses the call before."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(url)
        self.random = random.Random(seed)
        self.lost = 0

    async def around_commits(self, calls: Calls, commands: Sequence[Command]) -> list[Any]:
        fate = self.random.random()
        if fate < 0.1:
            self.lost += 1
            raise lost()
        answers = await calls(commands)
        if fate < 0.3:
            self.lost += 1
            raise lost()
        return answers


async def streaming_totals(scope: Any, receive: Any, send: Any) -> None:
    durable = scope["durable"]
    await send({"type": "hello", "number": -1})
    while True:
        message = await receive()
        durable["total"] = durable.get("total", 0) + message["number"]
        await send({"type": "part", "number": durable["total"]})
        await send({"type": "wherry.flush"})
        await send({"type": "part", "number": durable["total"]})


@pytest.mark.parametrize("seed", range(2))
async def test_commits_whose_answers_are_lost_take_effect_once(redis_url: str, seed: int):
    store = LosesAnswers(redis_url, seed)
    async with rig(redis_url) as seen, working(totals, store, **DURABLE):  # type: ignore[arg-type]
        for start in range(0, 900, 45):
            await seen.send_many([(f"s{n % 9}", n) for n in range(start, start + 45)])
            await seen.drained()
        for scope in range(9):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 900, 9)))
        assert store.lost > 1


@pytest.mark.parametrize("seed", range(2))
async def test_emits_whose_answers_are_lost_take_effect_once(redis_url: str, seed: int):
    store = LosesAnswers(redis_url, seed)
    async with (
        rig(redis_url) as seen,
        working(streaming_totals, store, **DURABLE),  # type: ignore[arg-type]
    ):
        for start in range(0, 400, 10):
            await seen.send_many([(f"s{n % 4}", n) for n in range(start, start + 10)])
            await seen.drained()
        for scope in range(4):
            sums = running_totals(list(range(scope, 400, 4)))
            assert await seen.numbers(f"s{scope}") == [-1, *[one for n in sums for one in (n, n)]]
        assert store.lost > 1


async def test_forgotten_scripts_are_sent_again(redis_url: str):
    async with rig(redis_url) as seen, working(totals, redis_url, **DURABLE):
        for start in range(0, 1000, 100):
            await seen.link.call("SCRIPT", "FLUSH")
            await seen.send_many([(f"s{n % 10}", n) for n in range(start, start + 100)])
        await seen.drained()
        for scope in range(10):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 1000, 10)))


async def test_read_that_ran_before_a_commit_and_is_parsed_after_it_delivers_once(redis_url: str):
    """The tombstone of a finished entry stays until that read was answered."""
    handled: Counter[int] = Counter()
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            handled[message["number"]] += 1
            await gate.wait()
            await send(message)

    store = LateReads(redis_url)
    hooks = Notes()
    async with (
        rig(redis_url) as seen,
        working(app, store, hooks=hooks) as worker,  # type: ignore[arg-type]
    ):
        ids = await seen.send_many([("a", n) for n in range(3)])
        await until(lambda: handled == {0: 1})
        await until(lambda: worker.application_instances["a"]["input_queue"].qsize() == 2)
        store.is_holding = True
        holding = worker._holdings.get(seen.partition("a"))
        assert holding is not None
        holding.ledger.rewind()
        worker._holdings.changed.set()
        await until(lambda: store.held)
        assert [one.decode() for one, _ in store.held[0][0][1]] == ids
        gate.set()
        await seen.drained()
        await until(lambda: not holding.ledger.in_flight)
        store.release.set()
        await seen.send("a", 3)
        await seen.answered("a", 4)
        assert handled == {0: 1, 1: 1, 2: 1, 3: 1}
        assert hooks.count("a commit was not done") == 0
        await until(lambda: not holding.ledger.knows(EntryId(ids[0])), 5)


async def test_read_that_was_sent_before_a_rewind_does_not_pass_over_what_was_let_go(
    redis_url: str,
):
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["number"] == 0:
                await gate.wait()
            await send(message)

    store = LateReads(redis_url)
    async with rig(redis_url) as seen, working(app, store) as worker:  # type: ignore[arg-type]
        vanishing, _ = await seen.send_many([("a", 0), ("a", 1)])
        await until(lambda: "a" in worker.application_instances)
        await until(lambda: worker.application_instances["a"]["input_queue"].qsize() == 1)
        store.is_holding = True
        await seen.send("a", 2)
        await until(lambda: store.held)
        holding = worker._holdings.get(seen.partition("a"))
        assert holding is not None
        rewinds = holding.ledger.rewinds
        await seen.link.call("XDEL", seen.input("a"), vanishing)
        gate.set()
        await until(lambda: holding.ledger.rewinds > rewinds)
        store.is_holding = False
        store.release.set()
        await seen.drained()
        assert await seen.numbers("a") == [1, 2]


async def test_read_that_is_answered_while_its_partition_is_handed_on_starts_nothing(
    redis_url: str,
):
    scopes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope["scope_id"])
        while True:
            await send(await receive())

    store = LateReads(redis_url)
    gate = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["scope_id"] != "slow":
            await app(scope, receive, send)
        await receive()
        await gate.wait()

    async with rig(redis_url, partitions=1) as seen:
        async with working(slow, store, partitions=1) as worker:  # type: ignore[arg-type]
            await seen.send("slow", 0)
            await until(lambda: _held(worker) == 1)
            store.is_holding = True
            await seen.send("a", 1)
            await until(lambda: store.held)
            (holding,) = worker._holdings.all()
            assert worker._parts is not None
            async with asyncio.TaskGroup() as tasks:
                handing = tasks.create_task(worker._parts.handoff.hand_off(holding, 5.0))
                worker._parts.membership.is_stopping = True
                await until(lambda: holding.ledger.is_draining)
                store.is_holding = False
                store.release.set()
                reader = worker._parts.reader
                assert isinstance(reader, Reader)
                await until(lambda: not reader._waiting)
                gate.set()
                await until(handing.done)
            assert scopes == []
            assert set(await seen.owners()) == {""}
        assert await seen.backlog() == 1
        async with working(app, redis_url, partitions=1):
            await seen.drained()
        assert await seen.numbers("a") == [1]


def _held(worker: Worker) -> int:
    return worker._holdings.in_flight()[0]


class LateFetches(FlakyStore):
    """Holds the answer to a fetch of deferred entries back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.held = 0
        self.release = asyncio.Event()

    async def around_fetch(self, calls: Calls, commands: Sequence[Command]) -> list[Any]:
        answers = await calls(commands)
        self.held += 1
        await self.release.wait()
        return answers


async def test_deferred_entries_that_arrive_while_their_partition_is_handed_on_start_nothing(
    redis_url: str,
):
    store = LateFetches(redis_url)
    handled: Counter[int] = Counter()

    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if scope["scope_id"] == "slow":
                await gate.wait()
            else:
                handled[message["number"]] += 1
            await send(message)

    async with rig(redis_url, partitions=1) as seen:
        await seen.send_many([("slow", 0), *[("hot", n) for n in range(50)]])
        async with working(app, store, partitions=1, scope_waiting=4) as worker:  # type: ignore[arg-type]
            await until(lambda: store.held)
            (holding,) = worker._holdings.all()
            assert worker._parts is not None
            worker._parts.membership.is_stopping = True
            async with asyncio.TaskGroup() as tasks:
                handing = tasks.create_task(worker._parts.handoff.hand_off(holding, 5.0))
                await until(lambda: not worker.application_instances)
                before = sum(handled.values())
                store.release.set()
                await until(lambda: worker._parts and not worker._parts.loader._refills)
                assert not worker.application_instances
                gate.set()
                await until(handing.done)
            assert sum(handled.values()) == before
        async with working(app, redis_url, partitions=1):
            await seen.drained()
        assert set(handled.values()) == {1}
        assert await seen.numbers("hot") == list(range(50))


class Watches(FlakyStore):
    """Delays each answer and notes calls of one partition that overlap."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.under_way: Counter[str] = Counter()
        self.overlaps = 0
        self.calls = 0

    async def around_commits(self, calls: Calls, commands: Sequence[Command]) -> list[Any]:
        keys = [str(command[3]) for command in commands]
        self.calls += len(keys)
        self.under_way.update(keys)
        self.overlaps += sum(count > 1 for count in self.under_way.values())
        try:
            await asyncio.sleep(0.003)
            answers = await calls(commands)
            await asyncio.sleep(0.003)
            return answers
        finally:
            self.under_way.subtract(keys)


async def test_one_call_of_a_partition_is_under_way_at_a_time(redis_url: str):
    store = Watches(redis_url)
    async with rig(redis_url) as seen, working(streaming_totals, store, **DURABLE):  # type: ignore[arg-type]
        await seen.send_many([(f"s{n % 20}", n) for n in range(600)])
        await seen.drained()
        assert store.overlaps == 0
        assert store.calls > 8
        for scope in range(20):
            sums = running_totals(list(range(scope, 600, 20)))
            assert await seen.numbers(f"s{scope}") == [-1, *[one for n in sums for one in (n, n)]]


class Refuses(FlakyStore):
    """Answers each commit with an error that passes, as a full or loading server does."""

    is_refusing = True
    asked = 0

    async def around_commits(self, calls: Calls, commands: Sequence[Command]) -> list[Any]:
        if self.is_refusing:
            self.asked += 1
            return [StoreUnavailable("Redis cannot serve now: READONLY") for _ in commands]
        return await calls(commands)


async def test_errors_that_pass_are_waited_out_without_haste(redis_url: str):
    store = Refuses(redis_url)
    async with rig(redis_url) as seen, working(totals, store, **DURABLE):  # type: ignore[arg-type]
        await seen.send_many([(f"s{n % 20}", n) for n in range(200)])
        await until(lambda: store.asked >= 3)
        await asyncio.sleep(0.3)
        assert store.asked < 30, "each refusal is followed by a pause"
        store.is_refusing = False
        await seen.drained()
        for scope in range(20):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 200, 20)))


async def test_instance_is_not_ended_for_room_before_its_commit_is_acknowledged(redis_url: str):
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await totals(scope, receive, send)
        finally:
            ended.append(scope["scope_id"])

    store = Refuses(redis_url)
    async with (
        rig(redis_url) as seen,
        working(app, store, max_applications=1, **DURABLE) as worker,  # type: ignore[arg-type]
    ):
        await seen.send("a", 1)
        await until(lambda: store.asked)
        await seen.send("b", 1)
        await until(lambda: "b" in worker.application_instances)
        asked = store.asked
        await until(lambda: store.asked > asked + 1)
        assert ended == []
        store.is_refusing = False
        await seen.drained()
        assert ended == ["a"]


async def test_server_that_restarts_with_its_data_is_worked_on(start_server: Any):
    """Its data may have gone back in time: every instance is ended, all is read again."""
    server = start_server(append_only=True, args=("--appendfsync", "always"))
    hooks = Notes()
    async with rig(server.url) as seen:
        async with working(totals, server.url, hooks=hooks, **DURABLE):
            await seen.send_many([(f"s{n % 20}", n) for n in range(1500)])
            await asyncio.to_thread(server.restart)
            await until(lambda: _answers(seen))
            await seen.drained(30)
            await until(lambda: hooks.count("partition lost") >= seen.partitions)
            reasons = [data["reason"] for text, data in hooks.said if text == "partition lost"]
            assert reasons == ["Redis was restarted or replaced"] * seen.partitions
        for scope in range(20):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 1500, 20)))


async def _answers(seen: Any) -> bool:
    try:
        await seen.link.call("PING")
    except StoreUnavailable:
        return False
    return True


async def test_server_that_restarts_empty_is_worked_on(start_server: Any):
    server = start_server()
    async with rig(server.url) as seen, working(totals, server.url, **DURABLE):
        await seen.send_many([(f"s{n % 20}", n) for n in range(500)])
        await asyncio.to_thread(server.restart)
        await until(lambda: _answers(seen))
        await seen.send_many([(f"t{n % 20}", n) for n in range(500)])
        await seen.drained(30)
        for scope in range(20):
            assert await seen.numbers(f"t{scope}") == running_totals(list(range(scope, 500, 20)))


async def test_paused_server_is_waited_for(start_server: Any):
    server = start_server()
    async with rig(server.url) as seen, working(echo, server.url):
        await seen.send_many([(f"s{n % 20}", n) for n in range(1000)])
        server.pause()
        await asyncio.sleep(4.0)  # longer than the lease and than the time limit of an answer
        server.resume()
        await seen.drained(30)
        for scope in range(20):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 1000, 20))
