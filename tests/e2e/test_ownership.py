"""Who owns what: hand-off, shares, lost leases; each on a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest

from tests.e2e.rig import PARTITIONS, QUICK, Notes, Rig, crash, echo, rig, until, working
from tests.e2e.test_durable import DURABLE, running_totals, totals
from wherry import Config, Worker
from wherry.broker.link import Link
from wherry.model import Partition

LONG_LEASE: dict[str, Any] = {"lease_s": 60.0, "beat_s": 0.2}


async def test_stopped_worker_hands_on_within_moments(redis_url: str):
    """With a lease of a minute the next worker can have begun only by what was released."""
    gate = asyncio.Event()
    handled: Counter[tuple[str, int]] = Counter()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            handled[scope["scope_id"], message["number"]] += 1
            if not gate.is_set() and message["number"] >= 100:
                await gate.wait()
            await send(message)

    async with rig(redis_url) as seen:
        await seen.send_many([(f"s{n % 20}", n) for n in range(400)])
        async with working(app, redis_url, **LONG_LEASE) as first:
            await until(lambda: len(handled) >= 120)
            first.request_stop()
            gate.set()
        assert first.has_drained
        assert await seen.owners() == [""] * PARTITIONS
        assert await seen.link.call("ZCARD", seen.keys.members) == 0
        left = await seen.backlog()
        assert left == 400 - len(handled), "what was not started stays in the stream"
        started = time.monotonic()
        async with working(app, redis_url, **LONG_LEASE):
            await seen.drained()
        assert time.monotonic() - started < 5
        assert set(handled.values()) == {1}, "nothing was done twice"
        for scope in range(20):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 400, 20))


async def test_waiting_worker_takes_over_from_a_stopped_one_at_once(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url, **LONG_LEASE) as second:
        async with working(echo, redis_url, **LONG_LEASE) as first:
            await until(lambda: _shares(seen, [first, second], [4, 4]))
            started = time.monotonic()
        await until(lambda: _shares(seen, [second], [8]))
        assert time.monotonic() - started < 3
        await seen.send_many([(f"s{n}", n) for n in range(40)])
        await seen.drained()


async def _shares(seen: Rig, workers: list[Worker], shares: list[int]) -> bool:
    owners = Counter(await seen.owners())
    return sorted(owners[one.worker_id] for one in workers) == sorted(shares)


async def test_two_and_three_workers_share_within_one(redis_url: str):
    async with rig(redis_url) as seen, AsyncExitStack() as stack:
        workers: list[Worker] = []
        for shares in ([8], [4, 4], [2, 3, 3]):
            workers.append(await stack.enter_async_context(working(totals, redis_url, **DURABLE)))
            await seen.send_many([(f"s{n % 50}", len(workers)) for n in range(500)])
            await until(lambda shares=shares: _shares(seen, workers, shares))
        await seen.drained()
        workers.pop(0).request_stop()
        await until(lambda: _shares(seen, workers, [4, 4]))
        await seen.send_many([(f"s{n}", 1) for n in range(50)])
        await seen.drained()
        for scope in range(50):
            numbers = [1] * 10 + [2] * 10 + [3] * 10 + [1]
            assert await seen.numbers(f"s{scope}") == running_totals(numbers)


async def test_partitions_that_need_not_move_do_not(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url) as first:
        await until(lambda: _shares(seen, [first], [8]))
        before = await _epochs(seen)
        async with working(echo, redis_url) as second:
            await until(lambda: _shares(seen, [first, second], [4, 4]))
            beats = await seen.link.call("ZSCORE", seen.keys.members, first.worker_id)

            async def beaten() -> bool:
                now = await seen.link.call("ZSCORE", seen.keys.members, first.worker_id)
                return float(now) > float(beats) + 1500

            await until(beaten)
            assert await _shares(seen, [first, second], [4, 4])
            moved = [b - a for a, b in zip(before, await _epochs(seen), strict=True)]
            assert sorted(moved) == [0, 0, 0, 0, 1, 1, 1, 1]


async def _epochs(seen: Rig) -> list[int]:
    commands = [
        ("HGET", seen.keys.lease(Partition(one)), "epoch") for one in range(seen.partitions)
    ]
    return [int(one) for one in await seen.link.calls(commands)]


async def test_part_of_a_member_that_cannot_claim_goes_to_the_others_and_stays(redis_url: str):
    """Or it would be shed for that member, and taken back, for ever."""
    async with rig(redis_url) as seen, working(echo, redis_url) as first:
        unable = Worker(echo, redis_url, Config(**QUICK), hooks=Notes())
        unable._holdings.avoided |= {Partition(one) for one in range(PARTITIONS)}
        task = asyncio.create_task(unable.arun())
        await unable.ready()
        await until(lambda: _shares(seen, [first], [4]))
        await until(lambda: _shares(seen, [first], [8]))
        before = await _epochs(seen)
        await _beats(seen, first, 3000)
        assert await _epochs(seen) == before
        unable._holdings.avoided.clear()
        await until(lambda: _shares(seen, [first, unable], [4, 4]))
        unable.request_stop()
        await task


async def test_partitions_of_a_worker_that_drains_for_long_are_claimed_one_by_one(redis_url: str):
    """Not when the last of its messages has ended and it leaves."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if scope["scope_id"] == "slow":
                await gate.wait()
            await send(message)

    async with (
        rig(redis_url) as seen,
        working(app, redis_url, **LONG_LEASE) as second,
        working(app, redis_url, **LONG_LEASE) as first,
    ):
        await until(lambda: _shares(seen, [first, second], [4, 4]))
        await seen.send("slow", 1)
        pair = [first, second]
        await until(lambda: any("slow" in one.application_instances for one in pair))
        pair.sort(key=lambda one: "slow" not in one.application_instances)
        slow, other = pair
        slow.request_stop()
        await until(lambda: _shares(seen, [slow, other], [1, 7]))
        gate.set()
        await until(lambda: _shares(seen, [other], [8]))


async def _beats(seen: Rig, worker: Worker, for_ms: int) -> None:
    """Wait until a worker has beaten for so long."""
    start = await seen.link.call("ZSCORE", seen.keys.members, worker.worker_id)

    async def beaten() -> bool:
        now = await seen.link.call("ZSCORE", seen.keys.members, worker.worker_id)
        return float(now) > float(start) + for_ms

    await until(beaten)


async def test_dead_workers_partitions_are_taken_when_the_lease_runs_out(redis_url: str):
    async with rig(redis_url) as seen, working(totals, redis_url, **DURABLE) as living:
        dying = Worker(totals, redis_url, Config(**QUICK | DURABLE), hooks=Notes())
        task = asyncio.create_task(dying.arun())
        await until(lambda: _shares(seen, [living, dying], [4, 4]))
        await seen.send_many([(f"s{n % 40}", n) for n in range(2000)])
        await crash(task)
        await until(lambda: _shares(seen, [living], [8]))
        await seen.drained()
        for scope in range(40):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 2000, 40)))


async def _take_leases(link: Link, seen: Rig) -> None:
    """Give every lease to somebody else, as after a stall of the owner."""
    for one in range(seen.partitions):
        fields = ("owner", "somebody", "token", "99:else", "epoch", "99")
        await link.call("HSET", seen.keys.lease(Partition(one)), *fields)


async def test_stolen_lease_fences_and_the_successor_redoes_the_work(redis_url: str):
    gate = asyncio.Event()
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        durable = scope["durable"]
        try:
            while True:
                message = await receive()
                durable["total"] = durable.get("total", 0) + message["number"]
                await send({"type": "t", "number": durable["total"]})
                if message["number"] == 3:
                    await gate.wait()
        finally:
            ended.append(scope["scope_id"])

    hooks = Notes()
    scopes = [f"s{n}" for n in range(16)]
    async with rig(redis_url) as seen:
        async with working(app, redis_url, hooks=hooks, **DURABLE):
            await seen.send_many([(scope, n) for n in range(6) for scope in scopes])
            await until(lambda: _is_backlog(seen, 3 * 16))
            await _take_leases(seen.link, seen)
            gate.set()
            await until(lambda: hooks.count("partition lost") == PARTITIONS)
            await until(lambda: len(ended) == 16)
            assert await seen.backlog() == 3 * 16, "nothing was written after the lease was lost"
            for scope in scopes:
                assert await seen.numbers(scope) == running_totals([0, 1, 2])
        assert await seen.owners() == ["somebody"] * PARTITIONS
        for one in range(PARTITIONS):
            await seen.link.call("HSET", seen.keys.lease(Partition(one)), "expiry", "1")
        async with working(app, redis_url, **DURABLE):
            await seen.drained()
        for scope in scopes:
            assert await seen.numbers(scope) == running_totals(list(range(6)))


async def test_idle_instances_of_a_lost_partition_are_ended(redis_url: str):
    """They commit nothing, so that no fence tells: the renewal does."""
    async with rig(redis_url) as seen, working(echo, redis_url) as worker:
        await seen.send_many([(f"s{n}", n) for n in range(20)])
        await seen.drained()
        assert len(worker.application_instances) == 20
        await _take_leases(seen.link, seen)
        await until(lambda: not worker.application_instances)


async def _is_backlog(seen: Rig, count: int) -> bool:
    return await seen.backlog() == count


async def test_lease_key_that_vanished_is_claimed_again(redis_url: str):
    async with rig(redis_url) as seen, working(totals, redis_url, **DURABLE):
        for start in range(0, 2000, 500):
            await seen.send_many([(f"s{n % 20}", n) for n in range(start, start + 500)])
            for one in range(PARTITIONS):
                await seen.link.call("DEL", seen.keys.lease(Partition(one)))
        await seen.drained()
        for scope in range(20):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 2000, 20)))


async def test_flushed_server_is_worked_on_again(redis_url: str):
    """FLUSHALL under load: what it held is gone, what comes after is handled, nobody exits."""
    async with (
        rig(redis_url) as seen,
        working(totals, redis_url, **DURABLE),
        working(totals, redis_url, **DURABLE),
    ):
        for _ in range(3):
            await seen.send_many([(f"s{n % 50}", n) for n in range(1000)])
            await seen.link.call("FLUSHALL")
        await seen.send_many([(f"after{n % 30}", n) for n in range(600)])
        await seen.drained()
        for scope in range(30):
            numbers = list(range(scope, 600, 30))
            assert await seen.numbers(f"after{scope}") == running_totals(numbers)
        # The last flush may have come between the beat and the claim of one round.
        await until(lambda: seen.link.call("EXISTS", seen.keys.meta))
        assert await seen.link.call("HGET", seen.keys.meta, "partitions") == b"8"


async def test_cut_connections_lose_and_repeat_nothing(redis_url: str):
    async with (
        rig(redis_url) as seen,
        working(totals, redis_url, **DURABLE),
        working(totals, redis_url, **DURABLE),
    ):
        for start in range(0, 4000, 400):
            await seen.send_many([(f"s{n % 40}", n) for n in range(start, start + 400)])
            await seen.link.call("CLIENT", "KILL", "SKIPME", "yes")
        await seen.drained()
        for scope in range(40):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 4000, 40)))


async def test_running_message_that_passes_the_deadline_is_cut_off_and_not_counted(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        attempts.append(message["wherry"]["attempt"])
        if len(attempts) == 1:
            await asyncio.Event().wait()
        await send(message)

    attempts: list[int] = []
    async with rig(redis_url) as seen:
        await seen.send("a", 1)
        async with working(app, redis_url, drain_timeout_s=0.3, **LONG_LEASE) as first:
            await until(lambda: attempts)
        assert not first.has_drained
        assert await seen.owners() == [""] * PARTITIONS
        async with working(app, redis_url, **LONG_LEASE) as second:
            await seen.drained()
        assert second.has_drained
        assert attempts == [1, 1]
        assert await seen.numbers("a") == [1]


async def test_partition_of_an_instance_that_does_not_end_goes_to_others(redis_url: str):
    """It is released, its late sends have no effect, and this process does not claim it."""
    tries: list[int] = []
    refused: list[BaseException] = []
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        tries.append(message["wherry"]["attempt"])
        if len(tries) > 1:
            await send(message)
            return
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        try:
            await send(message)
        except OSError as error:
            refused.append(error)

    settings = LONG_LEASE | {"drain_timeout_s": 0.1, "end_timeout_s": 0.1, "partitions": 2}
    async with rig(redis_url, partitions=2) as seen, working(app, redis_url, **settings) as first:
        await seen.send("a", 1)
        await until(lambda: tries)
        stuck = seen.partition("a")
        (holding,) = [one for one in first._holdings.all() if one.partition == stuck]
        async with working(app, redis_url, **settings) as second:
            assert first._parts is not None
            await first._parts.handoff.hand_off(holding, 0.1)
            assert first._holdings.avoided == {stuck}
            await seen.drained()
            assert second._holdings.get(stuck) is not None
            assert first._holdings.get(stuck) is None
        assert tries == [1, 1]
        assert await seen.numbers("a") == [1]
        assert refused == []
        gate.set()
        await until(lambda: refused)
        await until(lambda: not first._holdings.avoided)
        await until(lambda: first._holdings.get(stuck) is not None)
        assert await seen.numbers("a") == [1]


@pytest.mark.parametrize("at_once", [False, True])
async def test_second_request_to_stop_hurries(redis_url: str, at_once: bool):
    """Also when it comes before the first one was acted upon."""
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        await asyncio.Event().wait()

    async with rig(redis_url) as seen, asyncio.timeout(10):
        await seen.send("a", 1)
        async with working(app, redis_url, drain_timeout_s=60.0) as worker:
            await started.wait()
            worker.request_stop()
            if not at_once:
                await until(lambda: not worker.application_instances)
            worker.request_stop()
            await until(lambda: all(one.get_name() != "arun" for one in asyncio.all_tasks()))
        assert not worker.has_drained
        assert await seen.backlog() == 1


async def test_stop_with_a_thousand_idle_instances_is_quick_and_leaves_nothing(redis_url: str):
    process = psutil.Process()
    connections = len(process.net_connections())
    async with rig(redis_url) as seen:
        async with working(echo, redis_url) as worker:
            await seen.send_many([(f"s{n}", n) for n in range(1000)])
            await seen.drained()
            assert len(worker.application_instances) == 1000
            started = time.monotonic()
        assert time.monotonic() - started < 3
        assert worker.has_drained
        assert not worker.application_instances
        listed = (await seen.link.call("CLIENT", "LIST")).decode().splitlines()
        assert len(listed) == 1, listed
    assert len(process.net_connections()) == connections
    assert [thread.name for thread in threading.enumerate() if thread.name == "renewal"] == []


async def test_abrupt_end_leaves_no_task_and_no_connection(redis_url: str):
    async with rig(redis_url) as seen:
        worker = Worker(echo, redis_url, Config(**QUICK), hooks=Notes())
        task = asyncio.create_task(worker.arun())
        await worker.ready()
        await seen.send_many([(f"s{n}", n) for n in range(100)])
        await seen.drained()
        await crash(task)
        assert not worker.application_instances
        await until(lambda: _is_alone(seen))


async def _is_alone(seen: Rig) -> bool:
    return len((await seen.link.call("CLIENT", "LIST")).splitlines()) == 1


async def test_worker_that_is_stopped_while_it_claims_releases_what_it_got(redis_url: str):
    async with rig(redis_url) as seen:
        for turns in range(60):
            worker = Worker(echo, redis_url, Config(**QUICK | LONG_LEASE), hooks=Notes())
            task = asyncio.create_task(worker.arun())
            await until(lambda worker=worker: worker._parts is not None)
            for _ in range(turns):
                await asyncio.sleep(0)
            worker.request_stop()
            async with asyncio.timeout(5):
                await task
            assert set(await seen.owners()) <= {""}, f"after {turns} turns of the loop"


async def test_worker_can_run_again(redis_url: str):
    worker = Worker(echo, redis_url, Config(**QUICK), hooks=Notes())
    async with rig(redis_url) as seen:
        for number in range(3):
            task = asyncio.create_task(worker.arun())
            await worker.ready()
            await seen.send("a", number)
            await seen.drained()
            worker.request_stop()
            await task
        assert await seen.numbers("a") == [0, 1, 2]
