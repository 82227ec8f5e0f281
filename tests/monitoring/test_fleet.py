"""One port for all workers of a supervisor: each by name, and what is said of them together."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import Project
from tests.e2e.rig import until
from tests.monitoring.asking import Answer, get
from wherry.broker.connect import open_store
from wherry.config import Config
from wherry.hooks import Hooks
from wherry.monitoring.fleet import FleetSite, Front
from wherry.monitoring.http import Response
from wherry.monitoring.server import Handler, Server, address_of, listen, listen_unix
from wherry.monitoring.site import WorkerSite, verdict
from wherry.monitoring.snapshot import METRICS
from wherry.runtime.vitals import Vitals


@dataclass(frozen=True)
class Info:
    pid: int
    worker_id: str
    probes_socket: Path


class Probed:
    """Stands for a worker whose probes say this."""

    def __init__(self, live: list[str], ready: list[str]) -> None:
        self._live, self._ready = live, ready

    def routes(self) -> Mapping[str, Handler]:
        return {"/livez": self._livez, "/readyz": self._readyz}

    async def aclose(self) -> None:
        pass

    async def _livez(self) -> Response:
        return verdict(self._live)

    async def _readyz(self) -> Response:
        return verdict(self._ready)


@contextmanager
def served(directory: Path, workers: Mapping[str, tuple[list[str], list[str]] | None]):
    """The address of a fleet; a worker that is None does not answer."""
    with ExitStack() as stack:
        paths = {name: directory / name for name in workers}
        for name, says in workers.items():
            if says is not None:
                server = Server(listen_unix(paths[name]), Probed(*says), Hooks())
                server.start()
                stack.callback(server.stop)
        server = Server(listen("127.0.0.1", 0), FleetSite(lambda: paths), Hooks())
        server.start()
        stack.callback(server.stop)
        yield server.address


GOOD: tuple[list[str], list[str]] = ([], [])
UNREADY: tuple[list[str], list[str]] = ([], ["not now"])
STUCK = (["stuck"], ["stuck"])


@pytest.mark.parametrize(
    ("workers", "live", "ready"),
    [
        ({}, 200, 503),
        ({"1": None}, 200, 503),
        ({"1": GOOD, "2": GOOD}, 200, 200),
        ({"1": GOOD, "2": None}, 200, 200),
        ({"1": GOOD, "2": STUCK}, 200, 200),
        ({"1": UNREADY, "2": UNREADY}, 200, 503),
        ({"1": UNREADY, "2": STUCK}, 200, 503),
        ({"1": STUCK, "2": None}, 503, 503),
        ({"1": STUCK, "2": STUCK}, 503, 503),
    ],
)
async def test_verdict_is_that_of_the_best(
    tmp_path: Path,
    workers: Mapping[str, tuple[list[str], list[str]] | None],
    live: int,
    ready: int,
):
    with served(tmp_path, workers) as address:
        assert (await get(address, "/livez")).status == live
        assert (await get(address, "/readyz")).status == ready


async def test_each_worker_is_named_with_what_it_says(tmp_path: Path):
    with served(tmp_path, {"1": GOOD, "2": UNREADY, "3": None}) as address:
        answer = json.loads((await get(address, "/readyz")).body)
    assert answer["status"] == "ok"
    silent = answer["workers"].pop("3")
    assert answer["workers"] == {
        "1": {"status": "ok"},
        "2": {"status": "unavailable", "reasons": ["not now"]},
    }
    assert "does not answer" in silent["reasons"][0]


async def test_front_serves_in_the_loop_of_the_supervisor_until_cancelled(tmp_path: Path):
    infos = [Info(pid=7, worker_id="", probes_socket=tmp_path / "1")]
    listening = listen("127.0.0.1", 0)
    address = address_of(listening)
    async with asyncio.TaskGroup() as tasks:
        front = tasks.create_task(Front(listening, Hooks()).run(lambda: infos))
        assert (await get(address, "/readyz")).json()["workers"].keys() == {"pid 7"}
        infos.append(Info(pid=8, worker_id="here-8", probes_socket=tmp_path / "2"))
        assert (await get(address, "/readyz")).json()["workers"].keys() == {"pid 7", "here-8"}
        front.cancel()
    with pytest.raises(ConnectionError):
        await get(address, "/readyz")


async def test_metrics_of_all_workers_are_told_apart(tmp_path: Path):
    store = open_store("memory://fleet")
    paths: dict[str, Path] = {}
    with ExitStack() as stack:
        for name in ("1", "2"):
            vitals = Vitals(f"worker-{name}", Config())
            vitals.stalls = int(name)
            paths[name] = tmp_path / name
            site = WorkerSite(vitals, store, is_for_supervisor=True)
            server = Server(listen_unix(paths[name]), site, Hooks())
            server.start()
            stack.callback(server.stop)
        paths["3"] = tmp_path / "3"
        server = Server(listen("127.0.0.1", 0), FleetSite(lambda: paths), Hooks())
        server.start()
        stack.callback(server.stop)
        answer = await get(server.address, "/metrics")
    assert answer.value("loop_stalls_total", worker="worker-1", namespace="wherry") == 1
    assert answer.value("loop_stalls_total", worker="worker-2") == 2
    workers = {one.labels["worker"] for one in answer.samples()}
    assert workers == {"worker-1", "worker-2"}
    assert answer.body.count("# TYPE ") == len(METRICS) + 6, "each family once"


@pytest.mark.limit_s(90)
async def test_one_port_speaks_for_the_workers_of_a_command(redis_url: str, tmp_path: Path):
    project = Project(tmp_path, redis_url)
    arguments = ("run", "echo:app", "--workers", "2", "--http-port", "0", "--lease", "1")
    command = project.start(*arguments, "--set", "beat_s=0.3", "--set", "partitions=8")
    try:
        await asyncio.to_thread(command.wait_for, '"address": "http')
        # Not its events: a worker may be about to write another line.
        [address] = re.findall(r'"address": "([^"]+)"', command.stderr)

        async def answers() -> Answer | None:
            found = await get(address, "/readyz")
            states = [one["status"] for one in found.json()["workers"].values()]
            are_named = not any(name.startswith("pid") for name in found.json()["workers"])
            return found if states == ["ok", "ok"] and are_named else None

        ready = await until(answers, 40)
        assert ready.status == 200
        names = ready.json()["workers"].keys()
        metrics = await get(address, "/metrics")
        owned = [metrics.value("partitions_owned", worker=name) for name in names]
        assert sum(owned) == 8
        first = next(iter(names))
        os.kill(int(first.split("-")[-2]), signal.SIGKILL)

        async def is_replaced() -> bool:
            found = (await get(address, "/readyz")).json()["workers"]
            states = [one["status"] for one in found.values()]
            return first not in found and states == ["ok", "ok"]

        await until(is_replaced, 40)
        assert (await get(address, "/livez")).status == 200
        command.process.terminate()
        assert await asyncio.to_thread(command.process.wait, 30) == 0
    finally:
        await asyncio.to_thread(command.kill)
