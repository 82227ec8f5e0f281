"""The command line on every store: workers as processes, killed and drained, and operators."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.cli.commands import Project
from tests.conformance.parts import client, seeing
from tests.e2e.rig import Rig, until
from tests.stores import Place

TOTALS = """
async def app(scope, receive, send):
    durable = scope["durable"]
    while True:
        message = await receive()
        if message["number"] < 0:
            raise ValueError("negative")
        durable["total"] = durable.get("total", 0) + message["number"]
        await send({"type": "total", "total": durable["total"], "number": message["number"]})
"""
FLAGS = (
    *("totals:app", "--durable-state", "--partitions", "8", "--max-attempts", "1"),
    *("--set", "lease_s=1.5", "--set", "beat_s=0.3", "--set", "block_s=1", "--set", "lifespan=off"),
    *("--set", "socket_timeout_s=3"),
)
SCOPES = [f"s{n}" for n in range(20)]


@pytest.mark.limit_s(90)
@pytest.mark.without("memory", why="it lives inside one process")
async def test_processes_are_killed_drained_and_looked_at(place: Place, tmp_path: Path):
    """One is killed at work, the other finishes; then an operator looks, and drains it."""
    project = Project(tmp_path, place.url_of("worker"))
    project.write("totals.py", TOTALS)
    numbers = list(range(1, 51))
    async with seeing(place) as seen:
        with project.start_worker(*FLAGS) as one, project.start_worker(*FLAGS) as other:
            await until(lambda: _shares(seen, 2))
            await seen.send_many([(scope, n) for n in numbers for scope in SCOPES])
            await until(lambda: _is_below(seen, 800))
            one.kill()
            await seen.drained(30)
            for scope in SCOPES:
                replies = [reply.message for reply in await seen.replies(scope) if reply.message]
                assert [reply["number"] for reply in replies] == numbers
                assert await seen.state(scope) == {"total": sum(numbers)}
            async with client(place) as producer:
                await producer.send("s0", {"type": "n", "number": -1})
            await seen.drained()
            operator = Project(tmp_path, place.url_of("operator"))
            await until(lambda: asyncio.to_thread(_is_alone, operator))
            await asyncio.to_thread(_operate, operator)
            assert await asyncio.to_thread(other.stop, signal.SIGTERM) == 0
        assert await seen.owners() == [""] * 8


def _is_alone(project: Project) -> bool:
    """Whether the killed worker counts no longer."""
    return len(json.loads(project.run("status", "--json").stdout)["members"]) == 1


def _operate(project: Project) -> None:
    assert json.loads(project.run("status", "--json").stdout)["backlog"] == 0
    found = json.loads(project.run("dlq", "ls", "--json").stdout)
    assert [one["scope"] for one in found["letters"]] == ["s0"]


async def _shares(seen: Rig, workers: int) -> bool:
    owners = set(await seen.owners())
    return "" not in owners and len(owners) == workers


async def _is_below(seen: Rig, count: int) -> bool:
    return await seen.backlog() < count
