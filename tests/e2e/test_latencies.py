"""A worker that measures tells in its member hash how long messages take; another does not."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.rig import Rig, rig, until, working
from wherry import Config, Worker
from wherry.broker.leases import read_members
from wherry.runtime.vitals import Vitals

FIELDS = [f"{what}_{share}_us" for what in ("queueing", "handling") for share in ("p50", "p99")]
HANDLING_S = 0.02


async def sleepy(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await receive()
        await asyncio.sleep(HANDLING_S)


def measuring(application: Any, url: Any, config: Config, **more: Any) -> Worker:
    worker = Worker(application, url, config, **more)
    worker.vitals = Vitals(worker.worker_id, config)
    return worker


async def told(seen: Rig) -> dict[str, str]:
    [member] = await read_members(seen.link, seen.keys)
    return member.fields


async def test_latencies_of_the_last_beats_are_told(redis_url: str):
    async with rig(redis_url) as seen, working(sleepy, redis_url, kind=measuring):
        await until(lambda: _has(seen, lambda fields: fields.get(FIELDS[0]) == ""))
        await seen.send_many([("a", 1)] * 5)

        def is_measured(fields: dict[str, str]) -> bool:
            return all(fields.get(name) for name in FIELDS)

        await until(lambda: _has(seen, is_measured))
        fields = await told(seen)
        assert int(fields["handling_p50_us"]) >= HANDLING_S * 1e6 / 2
        assert int(fields["handling_p50_us"]) <= int(fields["handling_p99_us"])
        assert int(fields["queueing_p50_us"]) <= int(fields["queueing_p99_us"])
        await until(lambda: _has(seen, lambda fields: fields["handling_p99_us"] == ""))


async def test_worker_that_does_not_measure_tells_none(redis_url: str):
    async with rig(redis_url) as seen, working(sleepy, redis_url):
        await seen.send_many([("a", 1)] * 5)
        await until(lambda: _has(seen, lambda fields: fields["done"] == "5"))
        assert not set(FIELDS) & set(await told(seen))


async def _has(seen: Rig, condition: Any) -> bool:
    return condition(await told(seen))
