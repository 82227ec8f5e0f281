"""The short form of the fault runs: real processes, every kind of fault at least once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from tests.e2e.rig import until

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


@pytest.mark.limit_s(240)
async def test_nothing_is_lost_doubled_or_reordered_under_faults(tmp_path: Path):
    report, kept = tmp_path / "report.json", tmp_path / "kept"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.chaosrun"),
        *(f"--{name}={value}" for name, value in OPTIONS.items()),
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
    found = json.loads(report.read_text(encoding="utf-8"))
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
