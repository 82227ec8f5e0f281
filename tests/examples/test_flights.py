"""The demo runs as it says it does, and its check notices what is wrong."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis.asyncio

from examples.flights.month import MONTH, NO_TAIL_NUMBER, read_month, rows_by_scope
from examples.flights.report import (
    Report,
    check_answers,
    compare,
    compute_totals,
    format_table,
    format_verdict,
)
from tests.examples.processes import ROOT, processes
from tests.servers import Server
from wherry import Client, Config

FLIGHTS = 27_004
AIRCRAFT = 3_148


def test_the_month_is_whole():
    flights = read_month()
    rows = rows_by_scope(flights)
    assert len(flights) == FLIGHTS
    assert len(rows) == AIRCRAFT + 1
    assert len(rows[NO_TAIL_NUMBER]) == 155
    totals = compute_totals()
    assert sum(one["flights"] + one["cancelled"] for one in totals.values()) == FLIGHTS
    assert sum(one["cancelled"] for one in totals.values()) == 606


def test_table_names_the_busiest_aircraft():
    table = format_table(Report(totals=compute_totals()), duration_s=10.0)
    assert re.search(r"busiest aircraft.*\n  N730MQ", table)
    assert "27,004" in table
    assert "606" in table
    assert "2,700" in table  # messages a second


async def run(*arguments: str, env: Mapping[str, str], directory: Path = ROOT) -> tuple[int, str]:
    """Run the demo as ``scripts/demo`` does; return exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights.demo", *arguments),
        cwd=directory,
        env=os.environ | dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


def left_in(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith("wherry-demo-")]


def assert_checked(output: str) -> None:
    assert "check: all 3,149 totals equal a plain computation over the file" in output, output
    assert re.search(r"busiest aircraft.*\n  N730MQ +\d", output)
    assert re.search(r"cancelled or diverted +606\n", output)
    assert re.search(r"sent 27,004 of 27,004   answered 27,004", output)


@pytest.mark.limit_s(120)
async def test_demo_runs_on_redis_and_leaves_nothing_behind(redis_server: Server):
    code, output = await run("--workers", "1", env={"WHERRY_URL": redis_server.url})
    assert code == 0, output
    assert_checked(output)
    assert redis_server.command("DBSIZE") == b":0\r\n"


@pytest.mark.limit_s(120)
async def test_demo_runs_on_the_embedded_store_with_two_workers(tmp_path: Path):
    code, output = await run(env={"WHERRY_URL": "", "TMPDIR": str(tmp_path)})
    assert code == 0, output
    assert_checked(output)
    assert left_in(tmp_path) == []


@pytest.mark.limit_s(120)
async def test_demo_runs_in_memory(tmp_path: Path):
    """Only the first days, as this store is slow; more aircraft than a worker keeps at once."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    month = tmp_path / MONTH.relative_to(ROOT)
    with gzip.open(MONTH, "rt", encoding="utf-8") as lines:
        some = list(itertools.islice(lines, 1 + 4_000))
    month.write_bytes(gzip.compress("".join(some).encode()))
    code, output = await run(env={"WHERRY_URL": "memory://"}, directory=tmp_path)
    assert code == 0, output
    assert "check: all 1,666 totals equal a plain computation over the file" in output, output
    assert re.search(r"sent +4,000 of 4,000   answered +4,000", output)
    assert Config().max_applications < 1_666


@pytest.mark.limit_s(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing_behind(
    redis_server: Server, number: signal.Signals
):
    """Both ways to end it, while flights are under way."""
    async with processes() as started, redis.asyncio.Redis.from_url(redis_server.url) as link:
        demo = await started.python(
            "-m", "examples.flights.demo", env={"WHERRY_URL": redis_server.url}
        )
        await demo.until_it_says("sent ")
        assert await demo.end(number) == 130
        assert await link.dbsize() == 0
        assert [one for one in await link.client_list() if one["name"].startswith("wherry")] == []


@pytest.mark.limit_s(60)
async def test_a_worker_that_cannot_start_ends_the_demo_with_its_words(redis_url: str):
    code, output = await run(env={"WHERRY_URL": redis_url, "WHERRY_MAX_APPLICATIONS": "none"})
    assert code == 1
    assert "ended with exit code 2" in output
    assert "WHERRY_MAX_APPLICATIONS" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "-1"], "must lie between 0 and 64"),
        (["--workers", "many"], "invalid int value"),
        (["--workers", "0"], "name their store in WHERRY_URL"),
    ],
)
async def test_wrong_use_is_told_in_a_sentence(arguments: list[str], sentence: str):
    code, output = await run(*arguments, env={"WHERRY_URL": ""})
    assert code == 2
    assert sentence in output
    assert "Traceback" not in output


TOTALS = {"flights": 2, "miles": 300, "delay_min": -5, "cancelled": 0}
FIRST = {"row": 7, "flights": 1, "miles": 100, "delay_min": 5}
LAST = {"row": 9, "flights": 2, "miles": 300, "delay_min": -5}


@pytest.mark.parametrize(
    ("replies", "problems"),
    [
        ([FIRST, LAST], 0),
        ([LAST], 1),
        ([FIRST, FIRST, LAST], 1),
        ([FIRST, LAST | {"miles": 400}], 1),
        ([LAST, FIRST], 2),
        ([FIRST, {"type": "error", "error": "buried"}], 2),
        ([], 2),
    ],
    ids=["right", "lost", "doubled", "wrong", "swapped", "buried", "silent"],
)
def test_check_notices_what_is_wrong(replies: list[dict[str, int]], problems: int):
    report = Report()
    compare(report, "N1", replies, [7, 9], TOTALS)
    assert len(report.problems) == problems, report.problems


async def test_check_of_a_month_that_nobody_answered_fails():
    rows = {scope: row for scope, row in rows_by_scope(read_month()).items() if scope < "N11"}
    async with Client("memory://nobody-answers", namespace="check") as client:
        report = await check_answers(client, rows)
    assert len(report.problems) == 2 * len(rows)
    assert format_verdict(report).startswith("check FAILED")
