"""Worker processes that are killed, stopped and drained while others live."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import PARTITIONS, Rig, rig, until
from tests.e2e.test_durable import running_totals

ROOT = Path(__file__).resolve().parents[2]
SCOPES = 60
MESSAGES = 6000


@contextlib.asynccontextmanager
async def fleet() -> AsyncGenerator[list[Process]]:
    """Processes that are killed at the end."""
    started: list[Process] = []
    try:
        yield started
    finally:
        for one in started:
            if one.returncode is None:
                one.kill()
            await one.wait()


async def start(processes: list[Process], url: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.crashing", url), cwd=ROOT, stdout=PIPE
    )
    processes.append(process)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"
    return process


async def check(seen: Rig) -> None:
    """Each message answered once and in order, and the totals right."""
    for scope in range(SCOPES):
        numbers = list(range(scope, MESSAGES, SCOPES))
        replies = await seen.replies(f"s{scope}")
        # What was streamed by an attempt that was cut short is told again under another attempt.
        assert [one.message["number"] for one in replies if one.message] == running_totals(numbers)
        assert len({(one.cause, one.index) for one in replies}) == len(replies)
        assert await seen.state(f"s{scope}") == {"total": sum(numbers)}
    assert await seen.dead() == []


async def _has_owner(seen: Rig, process: Process) -> bool:
    return any(f"-{process.pid}-" in owner for owner in await seen.owners())


async def _is_below(seen: Rig, count: int) -> bool:
    return await seen.backlog() < count


@pytest.mark.limit_s(120)
async def test_killed_workers_lose_and_repeat_nothing(redis_url: str):
    async with rig(redis_url) as seen, fleet() as processes:
        await seen.send_many([(f"s{n % SCOPES}", n) for n in range(MESSAGES)])
        await start(processes, redis_url)
        for part in range(3):
            dying = await start(processes, redis_url)
            await until(lambda dying=dying: _has_owner(seen, dying))
            left = MESSAGES - (part + 1) * MESSAGES // 5 - random.randrange(MESSAGES // 10)
            await until(lambda left=left: _is_below(seen, left))
            dying.send_signal(signal.SIGKILL)
            await dying.wait()
        await seen.drained(60)
        await check(seen)


@pytest.mark.limit_s(120)
async def test_stopped_worker_is_fenced_when_it_goes_on(redis_url: str):
    """SIGSTOP longer than the lease: another takes over; the stalled one has no effect."""
    async with rig(redis_url) as seen, fleet() as processes:
        stalled = await start(processes, redis_url)
        await start(processes, redis_url)
        await until(lambda: _has_owner(seen, stalled))
        await seen.send_many([(f"s{n % SCOPES}", n) for n in range(MESSAGES)])
        await until(lambda: _is_below(seen, MESSAGES - 500))
        stalled.send_signal(signal.SIGSTOP)
        await until(lambda: _lacks_owner(seen, stalled))
        stalled.send_signal(signal.SIGCONT)
        await seen.drained(60)
        await check(seen)


async def _lacks_owner(seen: Rig, process: Process) -> bool:
    return not await _has_owner(seen, process)


@pytest.mark.limit_s(120)
async def test_rolling_restart_repeats_nothing(redis_url: str):
    async with rig(redis_url) as seen, fleet() as processes:
        await seen.send_many([(f"s{n % SCOPES}", n) for n in range(MESSAGES)])
        running = [await start(processes, redis_url), await start(processes, redis_url)]
        for part in range(3):
            await until(lambda part=part: _is_below(seen, MESSAGES - (part + 1) * MESSAGES // 6))
            running.append(await start(processes, redis_url))
            old = running.pop(0)
            old.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                assert await old.wait() == 0
        await seen.drained(60)
        await check(seen)
        for one in running:
            one.send_signal(signal.SIGTERM)
        for one in running:
            async with asyncio.timeout(15):
                assert await one.wait() == 0
        owners: list[Any] = await seen.owners()
        assert owners == [""] * PARTITIONS
