"""Workers are killed in the middle of the month, and nothing of it shows."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from itertools import pairwise

import pytest
import redis.asyncio

from examples.flights.month import Flight, read_month, rows_by_scope
from examples.flights.produce import send_flights
from examples.flights.report import check_answers, format_verdict, wait_for_answers
from tests.examples.processes import Processes, Running, processes
from wherry import Client

APPLICATION = "examples.flights.app:application"
NAMESPACE = "kill"
PARTITIONS = 64
KILLS = 3
PART_AT_LEAST = 4_500


async def unfinished_of(link: redis.asyncio.Redis, worker_id: str) -> int:
    """Entries in the partitions whose lease a worker holds."""
    async with link.pipeline(transaction=False) as pipeline:
        for partition in range(PARTITIONS):
            tag = f"{{{NAMESPACE}:{partition}}}"
            pipeline.hget(f"{tag}:lease", "owner")
            pipeline.xlen(f"{tag}:in")
        found = await pipeline.execute()
    owned = zip(found[::2], found[1::2], strict=True)
    return sum(size for owner, size in owned if owner == worker_id.encode())


async def freeze_with_work(link: redis.asyncio.Redis, worker: Running) -> int:
    """Stop a worker at a moment at which it holds unfinished flights; return how many."""
    worker_id = await worker.worker_id()
    async with asyncio.timeout(20):
        while True:
            # It is looked at first: one that is stopped again and again cannot renew its leases,
            # and others get its partitions.
            if await unfinished_of(link, worker_id):
                worker.send_signal(signal.SIGSTOP)
                if count := await unfinished_of(link, worker_id):
                    return count
                worker.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.002)  # let it take some work


async def send_and_kill(
    link: redis.asyncio.Redis,
    started: Processes,
    url: str,
    client: Client,
    parts: Sequence[Sequence[Flight]],
) -> None:
    """Send the month in parts; while a part is on its way the elder worker is killed.

    Another worker lives at each kill, and a third one starts after it. The last part comes when
    all kills are done.
    """
    living = [await start_worker(started, url), await start_worker(started, url)]
    for worker in living:
        await worker.worker_id()
    for part in parts[:-1]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_flights(client, part, lambda _count: None))
            victim = living.pop(0)
            assert await freeze_with_work(link, victim) > 0
            assert living[0].process.returncode is None
            assert await victim.end(signal.SIGKILL) == -signal.SIGKILL
            living.append(await start_worker(started, url))
            await living[0].worker_id()
    await send_flights(client, parts[-1], lambda _count: None)


async def start_worker(started: Processes, url: str) -> Running:
    return await started.worker(APPLICATION, url, "--durable-state", "--namespace", NAMESPACE)


@pytest.mark.limit_s(150)
async def test_every_flight_is_answered_once_and_in_order_though_workers_are_killed(
    redis_url: str,
):
    flights = read_month()
    rows = rows_by_scope(flights)
    seed = random.randrange(2**32)
    moments = sorted(random.Random(seed).sample(range(0, len(flights), PART_AT_LEAST), KILLS + 2))
    moments = [0, *moments[1:-1], len(flights)]
    print(f"seed {seed}: parts begin at {moments}")
    parts = [flights[start:end] for start, end in pairwise(moments)]
    link = redis.asyncio.Redis.from_url(redis_url)
    async with (
        link,
        processes() as started,
        Client(redis_url, namespace=NAMESPACE) as client,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(send_and_kill(link, started, redis_url, client, parts))
        async with asyncio.timeout(120):
            await wait_for_answers(client, rows, lambda: None)
    async with Client(redis_url, namespace=NAMESPACE) as client:
        report = await check_answers(client, rows)
    assert not report.problems, format_verdict(report)
