"""Partitions: shared, handed over, taken over, and lost without harm."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.conformance.parts import SETTINGS, at_work, check, seeing, totals
from tests.e2e.rig import PARTITIONS, Notes, Rig, crash, until
from tests.stores import Place
from wherry import Config, Worker
from wherry.model import Partition

LONG: dict[str, Any] = {"lease_s": 60.0, "beat_s": 0.2}


async def _shares(seen: Rig, *shares: int) -> bool:
    return sorted(Counter(await seen.owners()).values()) == sorted(shares)


async def test_workers_share_and_hand_over(place: Place):
    """With leases of a minute: what is handed over was released."""
    sent = {f"s{n}": [n, 1, 2] for n in range(16)}
    async with seeing(place) as seen:
        async with at_work(totals, place, **LONG):
            await seen.send_many([(scope, numbers[0]) for scope, numbers in sent.items()])
            async with at_work(totals, place, **LONG):
                await until(lambda: _shares(seen, 4, 4))
                await seen.send_many([(scope, 1) for scope in sent])
            await until(lambda: _shares(seen, 8))
            await seen.send_many([(scope, 2) for scope in sent])
            await check(seen, sent)
        assert await seen.owners() == [""] * PARTITIONS
        assert await seen.link.call("ZCARD", seen.keys.members) == 0


async def test_worker_that_dies_is_followed_when_its_leases_run_out(place: Place):
    sent = {f"s{n}": list(range(n, 600, 20)) for n in range(20)}
    async with seeing(place) as seen:
        await seen.send_many([(f"s{n % 20}", n) for n in range(600)])
        config = Config(**SETTINGS)
        worker = Worker(totals, place.url_of("worker"), config, hooks=Notes())
        task = asyncio.create_task(worker.arun())
        await until(lambda: _is_begun(seen, 600))
        await crash(task)
        assert set(await seen.owners()) != {""}
        async with at_work(totals, place):
            await check(seen, sent)


async def _is_begun(seen: Rig, count: int) -> bool:
    return await seen.backlog() < count


async def test_worker_whose_leases_were_taken_has_no_effect_any_more(place: Place):
    gate, waiting = asyncio.Event(), Counter[str]()
    hooks = Notes()

    async def held(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        waiting[scope["scope_id"]] += 1
        await gate.wait()
        scope["durable"]["total"] = message["number"]
        await send({"type": "total", "total": message["number"], "number": message["number"]})

    sent = {f"s{n}": [5] for n in range(16)}
    async with seeing(place) as seen:
        async with at_work(held, place, hooks=hooks):
            await seen.send_many([(scope, 5) for scope in sent])
            await until(lambda: len(waiting) == len(sent))
            for number in range(PARTITIONS):
                key = seen.keys.lease(Partition(number))
                fields = ("owner", "somebody", "token", "9:x", "epoch", 9, "expiry", 2**45)
                await seen.link.call("HSET", key, *fields)
            gate.set()
            await until(lambda: hooks.count("partition lost") == PARTITIONS)
            assert await seen.backlog() == len(sent)
            assert not any([await seen.replies(scope) for scope in sent])
        for number in range(PARTITIONS):
            await seen.link.call("HSET", seen.keys.lease(Partition(number)), "expiry", 1)
        async with at_work(held, place):
            await check(seen, sent)


async def test_store_that_was_emptied_is_worked_on_again(place: Place):
    async with seeing(place) as seen, at_work(totals, place):
        await seen.send("s", 1)
        await seen.drained()
        for client in place.clients():
            assert client.execute_command("FLUSHALL")
        await until(lambda: _are_owned(seen))
        await seen.send("s", 2)
        await seen.answered("s", 1)
        assert await seen.state("s") == {"total": 2}


async def _are_owned(seen: Rig) -> bool:
    return "" not in await seen.owners()
