"""Bounds: hot scopes, a small pool, and the window; each on a real server."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tests.e2e.flaky import FlakyStore
from tests.e2e.rig import Notes, echo, rig, until, working
from tests.e2e.test_durable import DURABLE, running_totals, totals
from wherry import Worker
from wherry.runtime.delivery import Delivery


async def test_hot_scope_is_deferred_in_order_beside_others(redis_url: str):
    """Five thousand messages of one scope: only ids are kept of what it has no room for."""
    async with rig(redis_url) as seen:
        hot = [("hot", n) for n in range(5000)]
        others = [(f"s{n % 30}", n) for n in range(900)]
        await seen.send_many([*hot[:4000], *others, *hot[4000:]])
        async with working(totals, redis_url, reply_length=10_000, **DURABLE):
            await seen.drained(40)
        assert await seen.numbers("hot") == running_totals(list(range(5000)))
        for scope in range(30):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 900, 30)))


async def test_hot_scope_does_not_hold_others_up(redis_url: str):
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if scope["scope_id"] == "hot":
                await gate.wait()
            await send(message)

    async with (
        rig(redis_url, partitions=1) as seen,
        working(app, redis_url, partitions=1, in_flight=200, in_flight_per_partition=200),
    ):
        await seen.send_many([("hot", n) for n in range(3000)])
        await seen.send_many([(f"s{n}", n) for n in range(100)])
        for number in range(100):
            await seen.answered(f"s{number}", 1)
        gate.set()
        await seen.drained()


@pytest.mark.parametrize("allowed", [0, 64])
async def test_others_are_handled_before_the_hot_scope_has_had_more_than_its_share(
    redis_url: str, allowed: int
):
    """Fifty thousand messages stand before theirs; its handler hangs at once, or after some."""
    gate = asyncio.Event()
    handled = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal handled
        while True:
            message = await receive()
            if scope["scope_id"] == "hot":
                if handled >= allowed:
                    await gate.wait()
                handled += 1
            await send(message)

    bounds: dict[str, Any] = {"partitions": 1, "in_flight": 200, "in_flight_per_partition": 200}
    async with rig(redis_url, partitions=1) as seen:
        await seen.send_many([("hot", n) for n in range(50_000)])
        await seen.send_many([(f"s{n % 50}", n) for n in range(500)])
        async with working(app, redis_url, **bounds):
            for scope in range(50):
                assert len(await seen.answered(f"s{scope}", 10, 30)) == 10
                assert await seen.numbers(f"s{scope}") == list(range(scope, 500, 50))
            assert handled == allowed
            await seen.link.call("XTRIM", seen.input("hot"), "MAXLEN", 0)
            gate.set()
            await seen.drained()


async def test_deferred_ids_that_vanished_are_dropped(redis_url: str):
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await gate.wait()
            await send(message)

    async with (
        rig(redis_url) as seen,
        working(app, redis_url, scope_waiting=4) as worker,
    ):
        ids = await seen.send_many([("hot", n) for n in range(300)])
        await until(lambda: _deferred(worker) > 250)
        for entry_id in ids[20:220]:
            await seen.link.call("XDEL", seen.input("hot"), entry_id)
        gate.set()
        await seen.drained()
        assert await seen.numbers("hot") == [*range(20), *range(220, 300)]


def _deferred(worker: Worker) -> int:
    return sum(one.deferred.count for one in worker._holdings.all())


async def test_pool_of_ten_serves_five_hundred_scopes_exactly_once(redis_url: str):
    running = most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await totals(scope, receive, send)
        finally:
            running -= 1

    async with rig(redis_url) as seen:
        messages = [(f"s{n % 500}", n) for n in range(3000)]
        await seen.send_many(messages)
        async with working(app, redis_url, max_applications=10, **DURABLE):
            await seen.drained(40)
        assert most <= 10
        for scope in range(500):
            assert await seen.numbers(f"s{scope}") == running_totals(list(range(scope, 3000, 500)))


async def test_evicted_scopes_repeat_and_lose_nothing_when_messages_come_one_by_one(redis_url: str):
    async with (
        rig(redis_url) as seen,
        working(totals, redis_url, max_applications=3, **DURABLE),
    ):
        for number in range(60):
            await seen.send_many([(f"s{n}", number) for n in range(number % 7, number % 7 + 5)])
        await seen.drained()
        for scope in range(11):
            mine = [n for n in range(60) if n % 7 <= scope < n % 7 + 5]
            assert await seen.numbers(f"s{scope}") == running_totals(mine)


async def test_long_message_in_a_full_pool_does_not_stop_the_reading(redis_url: str):
    """Once the last scope that waited was let in, the others' messages are read again."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if scope["scope_id"] == "slow":
                await gate.wait()
            await send(message)

    async with rig(redis_url) as seen, working(app, redis_url, max_applications=2) as worker:
        await seen.send_many([("a", 0), ("b", 0)])
        await seen.drained()
        await seen.send("slow", 1)
        await until(lambda: "slow" in worker.application_instances)
        for number in range(1, 20):
            await seen.send("b", number)
        assert len(await seen.answered("b", 20)) == 20
        gate.set()
        await seen.drained()


async def test_concurrency_bounds_busy_instances(redis_url: str):
    busy = most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal busy, most
        while True:
            message = await receive()
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.002)
            busy -= 1
            await send(message)

    async with rig(redis_url) as seen, working(app, redis_url, concurrency=3):
        await seen.send_many([(f"s{n % 40}", n) for n in range(400)])
        await seen.drained()
        assert most == 3
        for scope in range(40):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 400, 40))


class BreakingWatch:
    """Raises at each of the first few messages, as a tracer may."""

    due = 1

    def __init__(self, times: int) -> None:
        self.left = times

    def opened(self, delivery: Delivery) -> None:
        self.due = 1
        if self.left:
            self.left -= 1
            raise ZeroDivisionError

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        pass


async def test_error_of_a_tracer_takes_nobodys_place(redis_url: str):
    async with (
        rig(redis_url) as seen,
        working(echo, redis_url, concurrency=2, retry_backoff_s=0.01) as worker,
    ):
        worker._tracked.watch = BreakingWatch(6)
        await seen.send_many([(f"s{n % 4}", n) for n in range(40)])
        await seen.drained()
        for scope in range(4):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 40, 4))
        assert worker._holdings.tallies.retried == 6
        assert worker._tracked.busy == 0


@pytest.mark.parametrize(
    "bounds",
    [
        {"in_flight": 10, "in_flight_per_partition": 10},
        {"in_flight": 100, "in_flight_per_partition": 5},
        {"in_flight": 3, "in_flight_per_partition": 3},
        {"in_flight": 20, "in_flight_per_partition": 20, "scope_waiting": 2},
        {"in_flight_bytes": 3_000},
    ],
)
async def test_never_more_in_hand_than_the_window(redis_url: str, bounds: dict[str, Any]):
    worst = {"count": 0, "partition": 0, "bytes": 0}
    watched: list[Worker] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            for worker in watched:
                count, size = worker._holdings.in_flight()
                worst["count"] = max(worst["count"], count)
                worst["bytes"] = max(worst["bytes"], size)
                for holding in worker._holdings.all():
                    worst["partition"] = max(worst["partition"], holding.ledger.in_flight)
            await asyncio.sleep(0)
            await send(message)

    async with rig(redis_url) as seen:
        await seen.send_many([(f"s{n % 40}", n) for n in range(800)])
        await seen.send_many([("hot", n) for n in range(300)])
        async with working(app, redis_url, **bounds) as worker:
            watched.append(worker)
            await seen.drained(40)
        assert 0 < worst["count"] <= bounds.get("in_flight", 4096)
        assert worst["partition"] <= bounds.get("in_flight_per_partition", 1024)
        entry_bytes = 100
        assert worst["bytes"] <= bounds.get("in_flight_bytes", 2**26) + entry_bytes
        assert await seen.numbers("hot") == list(range(300))
        for scope in range(40):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 800, 40))


async def test_small_window_starves_no_partition(redis_url: str):
    """With less room than partitions each gets its turn, though the first is never empty."""
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send(message)

    async with (
        rig(redis_url) as seen,
        working(app, redis_url, in_flight=2, in_flight_per_partition=2),
    ):
        scopes: dict[int, str] = {}
        for number in range(100):
            scopes.setdefault(seen.partition(f"s{number}"), f"s{number}")

        async def keep_busy(scope: str) -> None:
            number = 0
            while not done.is_set():
                number += 1
                await seen.send_many([(scope, number)] * 20)

        async with asyncio.TaskGroup() as tasks:
            for partition in range(7):
                tasks.create_task(keep_busy(scopes[partition]))
            await asyncio.sleep(0.1)
            await seen.send(scopes[7], 1)
            await seen.answered(scopes[7], 1)
            done.set()
        await seen.drained(40)


async def test_memory_does_not_grow_with_the_backlog(redis_url: str):
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()
            await gate.wait()

    async with rig(redis_url) as seen:
        big = {"type": "t", "x": "x" * 10_000}
        await seen.send_many([(f"s{n % 20}", big) for n in range(2000)])
        tracemalloc.start()
        try:
            async with working(app, redis_url, in_flight=50, in_flight_per_partition=50) as worker:
                await until(lambda: worker._holdings.in_flight()[0] >= 50)
                assert tracemalloc.get_traced_memory()[0] < 6_000_000
                gate.set()
        finally:
            tracemalloc.stop()
        await seen.link.call("FLUSHALL")


async def test_busy_instances_are_never_ended_for_room(redis_url: str):
    cancelled: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                cancelled.append(scope["scope_id"])
                raise
            await send(message)

    hooks = Notes()
    async with rig(redis_url) as seen, working(app, redis_url, max_applications=4, hooks=hooks):
        await seen.send_many([(f"s{n % 50}", n) for n in range(200)])
        await seen.drained()
        assert cancelled == []


class Measured(FlakyStore):
    """Notes how much a read brings at most."""

    most_bytes = 0

    async def around_read(self, read: Callable[[], Awaitable[Any]]) -> Any:
        answer = await read()
        brought = [flat for _, entries in answer or () for _, flat in entries]
        self.most_bytes = max(self.most_bytes, sum(len(one) for flat in brought for one in flat))
        return answer


async def test_read_of_large_messages_brings_about_as_much_as_there_is_room_for(redis_url: str):
    """It is all in memory before the window counts it."""
    store = Measured(redis_url)
    async with rig(redis_url) as seen:
        for n in range(300):
            await seen.send(f"s{n % 40}", {"type": "n", "number": n, "pad": bytes(2**16)})
        async with working(echo, cast("Any", store), in_flight_bytes=2**20):
            await seen.drained(60)
    assert store.most_bytes < 4 * 2**20
