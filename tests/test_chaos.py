"""The short form of the fault runs: real processes, every kind of fault at least once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from scripts.chaosrun.answers import ScopeCheck
from scripts.chaosrun.findings import Findings
from scripts.chaosrun.fleet import Fleet
from scripts.chaosrun.journal import Journal, Sent
from scripts.chaosrun.proxy import Proxy
from tests.e2e.rig import until
from wherry.engine.suspects import DEATH
from wherry.model import EntryId, Reply, ScopeId

ROOT = Path(__file__).resolve().parents[1]
ONCE = ("stop", "redis", "out", "in", "delay", "cut", "hole", "half")
OPTIONS = {
    "messages": 6_000,
    "scopes": 200,
    "kills": 2,
    "stops": 1,
    "terms": 2,
    "redis-kills": 1,
    "scales": 1,
    "network": 1,
    "failovers": 2,
}


def _blames(reply: dict[str, Any], *, kind: str = "count", fails: int = 0, probes: int = 0) -> bool:
    """Whether the checker of the fault runs finds this one answer wrong."""
    journal, findings = Journal(), Findings()
    journal.accept("loop-1", Sent("5-0", 1, kind, fails))
    place = {"id": EntryId("9-0"), "scope_id": ScopeId("loop-1"), "cause": "5-0", "index": 0}
    answer = Reply(**place, **reply)
    seen = Counter({("loop-1", "5-0"): probes})
    ScopeCheck(findings, journal, seen, "loop-1").check([answer])
    return not findings.is_good


@pytest.mark.parametrize(
    ("attempt", "fails", "probes", "is_wrong"),
    [
        (1, 0, 0, False),
        (2, 1, 0, False),
        (2, 0, 0, True),  # an attempt from nowhere
        (1, 1, 0, True),  # the first fails by plan
        (1, 0, 1, False),  # a probe that nobody died of
        (2, 0, 1, False),
        (3, 0, 1, True),  # one death is one attempt
        (3, 0, 2, False),
        (2, 1, 2, False),  # the death was in place of the planned failure
        (3, 1, 1, False),
        (1, 1, 1, True),
    ],
)
def test_checker_knows_that_a_death_at_a_probe_is_an_attempt(
    attempt: int, fails: int, probes: int, is_wrong: bool
):
    done = {"type": "done", "n": 1, "count": 1, "attempt": attempt}
    assert _blames({"message": done}, fails=fails, probes=probes) is is_wrong


@pytest.mark.parametrize(
    ("kind", "fails", "probes", "is_wrong"),
    [
        ("count", 0, 3, False),
        ("count", 0, 2, True),
        ("count", 2, 1, False),
        ("count", 2, 0, True),
        ("poison", 0, 1, False),
        ("poison", 0, 0, True),
    ],
)
def test_checker_knows_what_may_be_buried_for_deaths(
    kind: str, fails: int, probes: int, is_wrong: bool
):
    reply = {"message": None, "error": DEATH}
    assert _blames(reply, kind=kind, fails=fails, probes=probes) is is_wrong


async def test_probes_are_found_in_the_logs_of_the_workers(tmp_path: Path):
    told = {"event": "a message that may have killed a process is run alone", "scope": "s"}
    for number, ids in enumerate((["1-0", "2-0"], ["1-0"])):
        lines = [json.dumps({"level": "warning", **told, "entry": one}) for one in ids]
        log = tmp_path / f"worker-{number}.log"
        log.write_text("\n".join(["Traceback", *lines, ""]), encoding="utf-8")
    fleet = Fleet(Proxy(), 0, tmp_path, [])
    assert fleet.probes() == {("s", "1-0"): 2, ("s", "2-0"): 1}


async def test_workers_that_ended_are_replaced_once_though_two_look(tmp_path: Path):
    async with Proxy() as proxy:
        fleet = Fleet(proxy, 1, tmp_path, ["no_such_setting=1"])
        try:
            for ended in [await fleet.start(), await fleet.start()]:
                assert await ended.process.wait() == 2
            async with asyncio.TaskGroup() as tasks:
                for _ in range(2):
                    tasks.create_task(fleet.replace_ended())
            assert fleet.ended == {2: 2}
            assert [one.name for one in fleet.workers] == ["worker-3", "worker-4"]
        finally:
            await fleet.kill()


def _run(directory: Path, *flags: str) -> Awaitable[asyncio.subprocess.Process]:
    """A fault run whose temporary folder is ours."""
    return asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.chaosrun", *flags),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


def _left(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def _working_in(directory: Path) -> list[Path]:
    """Processes that have their working directory there, as the servers have."""
    places = {one: one.resolve() for one in Path("/proc").glob("[0-9]*/cwd")}
    return [one for one, place in places.items() if place.is_relative_to(directory)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: signal.Signals):
    process = await _run(tmp_path)
    await until(lambda: len(list(tmp_path.glob("*/*/worker-*.log"))) == 3)
    process.send_signal(number)
    assert await process.wait() == 130
    assert not _left(tmp_path)
    assert not _working_in(tmp_path)


async def test_failed_run_leaves_nothing_behind(tmp_path: Path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    server.chmod(0o755)
    process = await _run(scratch, "--server", str(server))
    assert await process.wait() == 1
    assert not _left(scratch)


async def _report(directory: Path, *flags: str) -> dict[str, Any]:
    """What a run that finds nothing wrong writes down."""
    report, kept = directory / "report.json", directory / "kept"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.chaosrun", *flags),
        *("--json", str(report), "--keep", str(kept)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said.decode()
    assert not kept.exists()
    return json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.limit_s(240)
async def test_nothing_is_lost_doubled_or_reordered_under_faults(tmp_path: Path):
    found = await _report(tmp_path, *(f"--{name}={value}" for name, value in OPTIONS.items()))
    faults = found["faults"]
    assert all(faults[kind] >= 1 for kind in ONCE)
    assert faults["kill"] >= 2
    assert faults["term"] >= 2
    assert faults["failover whole"] == faults["failover late"] == 1
    assert not any(found["wrong"].values())
    figures = found["figures"]
    forgotten = figures.get("accepted, and forgotten by Redis at a failover", 0)
    assert figures["accepted"] >= 6000
    assert figures["answered"] >= figures["accepted"] - forgotten
    assert figures["streamed answers"] > 0
    assert figures["buried"] > 0
    assert figures["requests answered"] > 0


@pytest.mark.limit_s(240)
async def test_nothing_that_a_replica_confirmed_is_lost_in_a_cluster(tmp_path: Path):
    """A primary is killed, and slots move meanwhile."""
    flags = ("--replicas=1", "--messages=1000", "--scopes=100", "--failovers=1", "--every=6")
    found = await _report(tmp_path, "--cluster", *flags)
    assert found["faults"]["failover in the cluster"] >= 1
    assert found["faults"]["kill"] >= 1
    assert not any(found["wrong"].values())
    figures = found["figures"]
    assert figures["accepted"] >= 1000
    assert figures["moves of the slot range"] >= 2
    assert figures["keys that moved with it"] > 0
