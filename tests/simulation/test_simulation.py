"""A short form of ``scripts/simulate``, replays that are the same, and mutants that are caught."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from scripts.simulation.points import POINTS, kinds_of, learn_scripts, parts_of
from scripts.simulation.story import play
from tests.simulation.mutants import CAUGHT_BY, MOST, MUTANTS, catch
from wherry import Client
from wherry.broker.scripts import Scripts

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(80)


def test_every_effect_happens_once_and_in_order_whatever_strikes():
    hits: Counter[str] = Counter()
    for seed in SEEDS:
        verdict = play(seed)
        assert verdict.findings == [], f"scripts/simulate --seed {seed}"
        assert verdict.figures["struck"] >= 5
        hits += verdict.hits
    missed = [point for point in POINTS if not hits[point]]
    assert missed == []


def test_seed_takes_the_same_way_each_time():
    assert play(95).trace == play(95).trace
    assert play(95).trace != play(96).trace


def test_other_stores_keep_the_computers_time():
    async def send() -> str:
        async with Client("memory://beside-a-world") as client:
            return await client.send("scope", {"type": "say"})

    play(95)
    sent_ms = int(asyncio.run(send()).partition("-")[0])
    assert abs(sent_ms / 1000 - time.time()) < 3600


def test_seed_takes_the_same_way_whatever_strings_hash_to():
    code = (
        "import json; from scripts.simulation.story import play; "
        "print(json.dumps([play(seed).trace for seed in (1, 29, 95)]))"
    )
    traces = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            ).stdout
        )
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]


def test_calls_are_known_by_what_they_carry():
    learn_scripts()
    assert kinds_of([[b"XREAD", b"COUNT", b"1"]]) == ["read"]
    assert kinds_of([[b"CLIENT", b"UNBLOCK", b"7"]]) == ["unblock"]
    assert kinds_of([[b"CLIENT", b"SETNAME", b"wherry"]]) == []
    command = str(Scripts(memory=True).commit.command([], [])[1]).encode()
    one = (b"O", b"1:a", b"5-0", b"reply")
    many = (b"m", b"1:a", b"rf", b"0", b"4", b"5", b"f", b"6-0", b"s", b"row")
    call = [b"EVALSHA", command, b"0", b"2", b"9", b"9", b"0", *one, *many]
    assert kinds_of([call[:11]]) == ["commit"]
    assert kinds_of([call]) == ["commit", "fail"]
    assert parts_of(call) == [(False, ["commit"]), (True, ["fail"])]


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str):
    known = CAUGHT_BY[name]
    verdict = catch(name, [known, *range(MOST)])
    assert verdict is not None, f"{MOST} seeds do not notice that {MUTANTS[name].__doc__}"
    assert play(verdict.seed).findings == []
    print(f"{name}: seed {verdict.seed}: {verdict.findings[0]}")
