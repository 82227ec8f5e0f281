"""What operators ask of workers that are at work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.rig import echo, rig, until, working
from tests.e2e.test_processes import MESSAGES, SCOPES, check, fleet, start
from tests.proxy import proxy
from wherry.broker import connect
from wherry.broker.connect import open_store
from wherry.broker.control import Deed, Order
from wherry.cli.lookup import OneScope, Scopes, listing, showing
from wherry.cli.workers import end


async def listed(url: str, order: Order = Order.AGE, count: int = 50) -> Scopes:
    store = open_store(url)
    link = store.link()
    try:
        return await listing(store, "test", order, count, 10.0)(link)
    finally:
        await link.aclose()


async def shown(url: str, scope: str) -> OneScope:
    store = open_store(url)
    link = store.link()
    try:
        return await showing(store, "test", scope, 10.0)(link)
    finally:
        await link.aclose()


@pytest.mark.limit_s(120)
async def test_drained_worker_loses_and_repeats_nothing(redis_url: str):
    async with rig(redis_url) as seen, fleet() as processes:
        old, _ = await start(processes, redis_url), await start(processes, redis_url)

        async def have_both() -> bool:
            return len({*await seen.owners()} - {""}) == 2

        await until(have_both)
        await seen.send_many([(f"s{n % SCOPES}", n) for n in range(MESSAGES)])
        await end(open_store(redis_url), "test", f"-{old.pid}-", Deed.DRAIN, 0.0)
        assert await seen.backlog() > 0, "it was asked in the middle of the work"
        async with asyncio.timeout(15):
            assert await old.wait() == 0
        await seen.drained(60)
        await check(seen)


async def test_slow_scope_and_full_scope_come_first(redis_url: str):
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["number"] == 0:
                await go_on.wait()
            await send({"type": "echo", "number": message["number"]})

    async with rig(redis_url) as seen:
        async with working(app, redis_url, scope_waiting=8) as worker:
            await seen.send("slow", 0)
            first = (await seen.link.call("XRANGE", seen.input("slow"), "-", "+"))[0][0].decode()
            await until(lambda: seen_busy(redis_url, 1))
            await seen.send_many([("full", n) for n in range(100)])
            await seen.send_many([(f"quick{n}", 1) for n in range(1100)])
            await until(lambda: seen_busy(redis_url, 2))
            for n in range(1100):
                await seen.answered(f"quick{n}", 1)

            found = await listed(redis_url, count=3)
            assert found.total == 1000, "as many as there may be instances"
            assert [row["scope"] for row in found.rows[:2]] == ["slow", "full"]
            slow = found.rows[0]
            assert (slow["state"], slow["entry"], slow["attempt"]) == ("busy", first, 1)
            assert slow["worker"] == worker.worker_id
            assert slow["oldest_ms"] > 0
            found = await listed(redis_url, Order.WAITING, count=1)
            (full,) = found.rows
            assert full["scope"] == "full"
            assert full["waiting"] + full["deferred"] == 99
            assert full["deferred"] > 0
            assert len((await listed(redis_url, count=200)).rows) == 200

            one = await shown(redis_url, "full")
            assert one.stored.owner == worker.worker_id
            assert one.instance is not None
            assert one.instance["state"] == "busy"
            assert (one.stored.waiting, one.stored.backlog >= 100) == (100, True)
            idle = await shown(redis_url, "quick1099")
            assert idle.instance is not None
            assert (idle.instance["state"], idle.entry) == ("idle", "")
            assert idle.stored.replies == 1
            go_on.set()
            await seen.drained()
        absent = await shown(redis_url, "full")
        assert (absent.stored.owner, absent.instance, absent.has_answered) == ("", None, True)


async def seen_busy(url: str, count: int) -> bool:
    found = await listed(url, count=10)
    return sum(row["state"] == "busy" for row in found.rows) == count


async def test_requests_that_make_no_sense_are_left_alone(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url):
        for text in (b"\xff", b"{}", b"[]", b'{"id": "../x", "do": "stop"}', b"x" * 10_000):
            await seen.link.call("PUBLISH", seen.keys.control, text)
        await seen.link.call(
            "PUBLISH", seen.keys.control, b'{"id": "0123456789", "do": "stop", "to": "another"}'
        )
        await seen.send("a", 1)
        await seen.answered("a", 1)
        assert (await listed(redis_url)).total == 1
        assert await seen.link.call("KEYS", "*:answer:*") == []


async def test_requests_are_answered_while_draining(redis_url: str):
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await go_on.wait()

    async with rig(redis_url) as seen:
        async with working(slow, redis_url) as worker:
            await seen.send("a", 1)
            await until(lambda: seen_busy(redis_url, 1))
            ended = await end(open_store(redis_url), "test", worker.worker_id, Deed.DRAIN, 0.0)
            assert ended.took_s is None
            again = await end(open_store(redis_url), "test", worker.worker_id, Deed.DRAIN, 0.0)
            assert again.worker == worker.worker_id, "asked twice it does the same as once"
            assert await seen.backlog() == 1
            await end(open_store(redis_url), "test", worker.worker_id, Deed.STOP, 10.0)
            assert not worker.has_drained
        assert await seen.backlog() == 1


@pytest.mark.parametrize(
    "strange",
    [
        b'{"id": "00000000", "do": "scopes", "count": 1e999}',
        b'{"id": "00000000", "do": "scope", "scope": "\\ud800"}',
    ],
)
async def test_strange_request_ends_no_worker(redis_url: str, strange: bytes):
    async with rig(redis_url) as seen, working(echo, redis_url):
        assert await seen.link.call("PUBLISH", seen.keys.control, strange) == 1
        assert (await shown(redis_url, "a")).scope_id == "a", "it was heard before this one"
        await seen.send("a", 1)
        await seen.answered("a", 1, 5)


async def test_subscription_of_which_one_half_is_alive_is_made_anew(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    """As behind a NAT that has forgotten it: requests would never be heard again."""
    monkeypatch.setattr(connect, "QUIET_S", 0.3)
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    async with proxy(port) as between, rig(redis_url) as seen, working(echo, between.url):
        await seen.send("a", 1)
        await seen.answered("a", 1)
        between.swallows_answers = lambda wire: b"SUBSCRIBE" in wire.asked
        assert await seen.link.call("PUBLISH", seen.keys.control, "lost") == 1
        await asyncio.sleep(0.2)
        between.heal()
        assert (await shown(redis_url, "a")).has_answered
