"""The short form of the fault runs: a fleet of real processes, killed, stalled and redeployed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULTS = {"kill": 2, "stop": 1, "term": 2, "redis": 1}


@pytest.mark.limit_s(180)
async def test_nothing_is_lost_doubled_or_reordered_under_faults(tmp_path: Path):
    report = tmp_path / "report.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.chaosrun", "--messages", "5000", "--scopes", "200"),
        *("--kills", "2", "--stops", "1", "--terms", "2", "--redis-kills", "1"),
        *("--json", str(report)),
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
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["faults"] == FAULTS
    assert found["figures"]["accepted"] == found["figures"]["answered"] >= 5000
    assert found["figures"]["streamed answers"] > 0
