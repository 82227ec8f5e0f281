"""The short form of the fault runs: real processes, every kind of fault at least once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

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
