"""Workers are killed in the middle of the month, and nothing of it shows."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest
import redis.asyncio

from examples.flights.month import read_month, rows_by_scope
from examples.flights.produce import send_flights
from examples.flights.report import check_answers, format_verdict, wait_for_answers
from tests.examples.processes import Processes, Running, processes
from wherry import Client

APPLICATION = "examples.flights.app:application"
NAMESPACE = "kill"
PARTITIONS = 64
KILLS = 3


class Answers:
    """Counts answers; lets others wait for a number of them."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def add(self) -> None:
        self.count += 1
        for number, event in self._waiting:
            if self.count >= number:
                event.set()

    async def reach(self, number: int) -> None:
        event = asyncio.Event()
        self._waiting.append((number, event))
        if self.count < number:
            await event.wait()


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
            worker.send_signal(signal.SIGSTOP)
            count = await unfinished_of(link, worker_id)
            if count:
                return count
            worker.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.005)  # let it take some work


async def kill_three(
    link: redis.asyncio.Redis, started: Processes, url: str, answers: Answers, moments: list[int]
) -> None:
    """Kill a worker at each moment, the elder one; another lives and a third one starts."""
    living = [await start_worker(started, url), await start_worker(started, url)]
    for worker in living:
        await worker.worker_id()
    for moment in moments:
        await answers.reach(moment)
        victim = living.pop(0)
        assert await freeze_with_work(link, victim) > 0
        assert living[0].process.returncode is None
        assert await victim.end(signal.SIGKILL) == -signal.SIGKILL
        living.append(await start_worker(started, url))
        await living[0].worker_id()


async def start_worker(started: Processes, url: str) -> Running:
    return await started.worker(APPLICATION, url, "--durable-state", "--namespace", NAMESPACE)


@pytest.mark.limit_s(150)
async def test_every_flight_is_answered_once_and_in_order_though_workers_are_killed(
    redis_url: str,
):
    flights = read_month()
    rows = rows_by_scope(flights)
    answers = Answers()
    seed = random.randrange(2**32)
    moments = sorted(random.Random(seed).sample(range(500, 20_000), KILLS))
    print(f"seed {seed}: kills after {moments} answers")
    link = redis.asyncio.Redis.from_url(redis_url)
    async with (
        link,
        processes() as started,
        Client(redis_url, namespace=NAMESPACE) as client,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(kill_three(link, started, redis_url, answers, moments))
        tasks.create_task(send_flights(client, flights, lambda _count: None))
        async with asyncio.timeout(120):
            await wait_for_answers(client, rows, answers.add)
    async with Client(redis_url, namespace=NAMESPACE) as client:
        report = await check_answers(client, rows)
    assert not report.problems, format_verdict(report)
