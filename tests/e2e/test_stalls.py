"""Applications that block the event loop, in worker processes of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.blocking import LEASE_S
from tests.e2e.rig import PARTITIONS, Rig, rig, until
from tests.e2e.test_durable import running_totals
from tests.e2e.test_processes import ROOT, fleet
from wherry.model import Partition

OTHERS = 30


class Blocker:
    """A worker process, and what it has warned of."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []

    async def listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))

    def about(self, text: str) -> list[dict[str, Any]]:
        return [one for one in self.said if text in one["event"]]


async def start(processes: list[Process], url: str, directory: Path) -> Blocker:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.blocking", url, str(directory)), cwd=ROOT, stdout=PIPE
    )
    processes.append(process)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"
    return Blocker(process)


async def _owned(seen: Rig) -> list[int]:
    owners = Counter(await seen.owners())
    return sorted(owners.values())


async def _epochs(seen: Rig) -> list[bytes]:
    commands = [("HGET", seen.keys.lease(Partition(p)), "epoch") for p in range(PARTITIONS)]
    return await seen.link.calls(commands)


def attempts(directory: Path) -> Counter[tuple[str, str]]:
    """Scope and number -> attempts; beginnings of them, in all processes."""
    lines = (directory / "attempts").read_text().splitlines()
    return Counter(tuple(line.split()[1:]) for line in lines)  # type: ignore[misc] - two words


@pytest.mark.limit_s(120)
async def test_handler_that_blocks_for_three_leases_is_fenced_and_redone_once(
    redis_url: str, tmp_path: Path
):
    async with rig(redis_url) as seen, fleet() as processes, asyncio.TaskGroup() as tasks:
        workers = [await start(processes, redis_url, tmp_path) for _ in range(2)]
        listening = [tasks.create_task(one.listen()) for one in workers]
        await until(lambda: _is_shared(seen))
        await seen.send_many([(f"s{n % OTHERS}", n) for n in range(300)])
        await seen.send("slow", 1)
        await seen.send("slow", {"type": "n", "number": 7, "block_s": 3 * LEASE_S})
        await seen.send_many([("slow", 2), *[(f"s{n % OTHERS}", n) for n in range(300, 600)]])
        await seen.drained(60)
        for scope in range(OTHERS):
            assert await seen.numbers(f"s{scope}") == running_totals(
                list(range(scope, 600, OTHERS))
            )
        assert await seen.numbers("slow") == running_totals([1, 7, 2])
        assert attempts(tmp_path)["slow", "7"] == 2, "once by the blocked one, once by the other"
        pids = [line.split()[0] for line in (tmp_path / "attempts").read_text().splitlines()
                if line.endswith(" slow 7")]  # fmt: skip
        assert len(set(pids)) == 2
        blocked, other = workers if str(workers[0].process.pid) == pids[0] else workers[::-1]
        await until(lambda: blocked.about("partition lost"))
        [told] = blocked.about("event loop is blocked")
        assert told["scope"] == "slow"
        assert "blocking.py" in told["where"]
        assert blocked.said.index(told) < blocked.said.index(blocked.about("partition lost")[0])
        assert other.said == []
        for process in processes:
            process.terminate()
        await asyncio.wait(listening)


async def _is_shared(seen: Rig) -> bool:
    return await _owned(seen) == [PARTITIONS // 2] * 2


@pytest.mark.limit_s(120)
async def test_handler_that_blocks_for_half_a_lease_costs_nothing(redis_url: str, tmp_path: Path):
    async with rig(redis_url) as seen, fleet() as processes, asyncio.TaskGroup() as tasks:
        workers = [await start(processes, redis_url, tmp_path) for _ in range(2)]
        listening = [tasks.create_task(one.listen()) for one in workers]
        await until(lambda: _is_shared(seen))
        epochs = await _epochs(seen)
        for number in range(6):
            await seen.send("slow", {"type": "n", "number": number, "block_s": LEASE_S / 2})
            await seen.send_many([(f"s{n % OTHERS}", n) for n in range(60)])
            # One by one: several that wait make one long block of an application without an await.
            await seen.drained()
        assert set(attempts(tmp_path).values()) == {1, 6}, "nothing was done twice"
        assert await seen.numbers("slow") == running_totals(list(range(6)))
        assert await _epochs(seen) == epochs, "no partition has changed its owner"
        assert [one for worker in workers for one in worker.about("partition lost")] == []
        for process in processes:
            process.terminate()
        await asyncio.wait(listening)
