"""Probes of worker processes: what turns them, and that they turn back by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cli.commands import Project, Running
from tests.monitoring.asking import address_of, get, turned
from tests.proxy import proxy
from tests.servers import Server
from wherry.client import Client

BLOCKING = """
import time

async def app(scope, receive, send):
    while True:
        message = await receive()
        time.sleep(message.get("block_s", 0))
        await send({"type": "done"})
"""
LEASE_S = 0.9
QUICK = ("--lease", str(LEASE_S), "--set", "beat_s=0.2", "--set", "lifespan=off")


@asynccontextmanager
async def running(project: Project, *arguments: str) -> AsyncGenerator[Running]:
    """A ready worker that serves probes."""
    arguments = ("blocking:app", "--http-port", "0", "--set", "partitions=8", *arguments)
    project.write("blocking.py", BLOCKING)
    worker = await asyncio.to_thread(project.start_worker, *arguments)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.kill)


@pytest.mark.limit_s(90)
async def test_readiness_ends_within_3_s_of_a_black_hole_and_comes_back(
    redis_server: Server, tmp_path: Path
):
    """With the default lease and beat; the loop turns all the time."""
    async with proxy(redis_server.port) as hole, running(Project(tmp_path, hole.url)) as worker:
        address = address_of(worker)
        for _ in range(2):
            await turned(address, "/readyz", 200, 15.0)
            hole.hold()
            began_s = time.monotonic()
            answer = await turned(address, "/readyz", 503, 3.0)
            assert time.monotonic() - began_s < 3.0
            assert answer.json()["status"] == "unavailable"
            assert "Redis does not answer" in answer.json()["reasons"][0]
            assert (await get(address, "/livez")).status == 200
            metrics = await get(address, "/metrics")
            assert (metrics.value("ready"), metrics.value("live")) == (0, 1)
            assert "wherry_backlog_entries{" not in metrics.body, "nobody knows"
            hole.heal()
        await turned(address, "/readyz", 200, 15.0)


@pytest.mark.limit_s(90)
async def test_beats_without_an_answer_end_readiness(redis_server: Server, tmp_path: Path):
    """New connections work, those that the worker has do not."""
    async with (
        proxy(redis_server.port) as hole,
        running(Project(tmp_path, hole.url), *QUICK) as worker,
    ):
        known = set(hole._wires)
        address = address_of(worker)
        await turned(address, "/readyz", 200, 15.0)
        hole.swallows_answers = lambda wire: wire in known
        answer = await turned(address, "/readyz", 503, 10.0)
        [reason] = answer.json()["reasons"]
        assert "Redis has answered no beat" in reason
        hole.heal()
        await turned(address, "/readyz", 200, 20.0)


@pytest.mark.limit_s(90)
async def test_liveness_ends_while_the_loop_is_blocked_and_comes_back(
    redis_url: str, tmp_path: Path
):
    async with running(Project(tmp_path, redis_url), *QUICK) as worker:
        address = address_of(worker)
        async with Client(redis_url) as client:
            await client.send("slow", {"type": "x", "block_s": 4 * LEASE_S})
        began_s = time.monotonic()
        answer = await turned(address, "/livez", 503, 4 * LEASE_S)
        assert time.monotonic() - began_s > LEASE_S / 2, "a lease from its last turn on"
        assert "the event loop has not turned" in answer.json()["reasons"][0]
        readiness = await get(address, "/readyz")
        assert readiness.status == 503
        metrics = await get(address, "/metrics")
        assert (metrics.value("ready"), metrics.value("live")) == (0, 0)
        assert metrics.value("loop_lag_seconds") > LEASE_S / 2
        await turned(address, "/livez", 200, 4 * LEASE_S)
        await turned(address, "/readyz", 200, 15.0)
        assert (await get(address, "/metrics")).value("loop_stalls_total") == 1


async def test_worker_that_drains_is_live_and_not_ready(redis_url: str, tmp_path: Path):
    project = Project(tmp_path, redis_url)
    async with running(project, *QUICK, "--set", "drain_timeout_s=20") as worker:
        address = address_of(worker)
        async with Client(redis_url) as client:
            await client.send("slow", {"type": "x", "block_s": LEASE_S / 2})
        worker.process.terminate()
        with contextlib.suppress(OSError, IndexError):  # it has ended before it was asked
            answer = await turned(address, "/readyz", 503, 5.0)
            assert answer.json()["reasons"]
        assert await asyncio.to_thread(worker.process.wait, 20) == 0


def test_port_in_use_is_one_sentence(tmp_path: Path, redis_server: Server):
    project = Project(tmp_path, redis_server.url)
    done = project.run("run", "echo:app", "--http-port", str(redis_server.port))
    assert done.returncode == 2
    assert f"http_port {redis_server.port} of http_host '127.0.0.1'" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_none_is_one_sentence(tmp_path: Path):
    done = Project(tmp_path).run("run", "echo:app", "--http-port", "70000")
    assert done.returncode == 2
    assert "--http-port=70000: http_port must lie between 0" in done.stderr


def test_without_a_port_nothing_listens(tmp_path: Path, redis_url: str):
    with Project(tmp_path, redis_url).start_worker("echo:app") as worker:
        assert "probes and metrics" not in worker.stderr
