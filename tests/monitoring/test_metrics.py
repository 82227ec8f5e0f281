"""Metrics in real answers: each is there, and after a known run the counters are right."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.cli.commands import Project, Running
from tests.e2e.rig import until
from tests.examples.processes import ROOT
from tests.monitoring.asking import Answer, address_of, get, turned
from wherry.client import Client, Envelope
from wherry.monitoring.snapshot import METRICS

MIXED = """
async def app(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "bad" or message.get("tries", 0) >= message["wherry"]["attempt"]:
            raise ValueError("no")
        for _ in range(message.get("replies", 1)):
            await send({"type": "done"})
"""
SETTINGS = ("partitions=8", "max_attempts=2", "lifespan=off")


QUICK = ("--lease", "0.9", "--set", "beat_s=0.2")
SLOW = {"WHERRY_RETRY_BACKOFF_S": "30"}


def start(project: Project, *arguments: str, **variables: str) -> Running:
    project.write("mixed.py", MIXED)
    settings = [part for one in SETTINGS for part in ("--set", one)]
    worker = ("mixed:app", "--http-port", "0", *settings, *arguments)
    return project.start_worker(*worker, **{"WHERRY_RETRY_BACKOFF_S": "0.01"} | variables)


async def settled(address: str, outcomes: dict[str, int]) -> Answer:
    """The metrics once these messages are counted; Redis is asked anew at most every 5 s."""

    async def is_settled() -> Answer | None:
        answer = await get(address, "/metrics")
        assert answer.status == 200
        found = {name: answer.value("messages_total", outcome=name) for name in outcomes}
        return answer if found == outcomes else None

    return await until(is_settled, 20)


@pytest.mark.limit_s(90)
async def test_counters_are_right_after_a_known_run(redis_url: str, tmp_path: Path):
    worker = await asyncio.to_thread(start, Project(tmp_path, redis_url))
    try:
        async with Client(redis_url) as client:
            await client.send_many((f"s{n % 10}", {"type": "x", "replies": 2}) for n in range(20))
            # The second waits behind the first, which is tried again, and expires meanwhile.
            late = Envelope(scope_id="again", message={"type": "x"}, expires_s=0.001)
            await client.send_many([("again", {"type": "x", "tries": 1}), late])
            await client.send("never", {"type": "bad"})
        outcomes = {"done": 21, "retried": 2, "dead": 1, "expired": 1, "held": 0}
        address = address_of(worker)
        answer = await settled(address, outcomes)
        assert answer.value("replies_total") == 41
        assert answer.value("handling_seconds_count") == 24, "each attempt"
        assert answer.value("queueing_seconds_count") == 22, "each message that was taken"
        assert 0 < answer.value("handling_seconds_sum") < 24
        assert answer.value("commit_seconds_count") == answer.value("commits_total")
        # 21 done, 2 failed once, 1 buried, 1 expired.
        assert answer.value("commit_operations_sum") == 25
        assert answer.value("claims_total") == answer.value("partitions_owned") == 8
        assert answer.value("partitions_total") == 8
        assert answer.value("instances") == len({*(n % 10 for n in range(20))}) + 1
        for name in ("entries_in_flight", "in_flight_bytes", "instances_busy", "held_scopes"):
            assert answer.value(name) == 0
        for name in ("fenced_commits", "takeovers", "handoffs", "evictions", "reconnects"):
            assert answer.value(f"{name}_total") == 0

        async def is_measured() -> bool:
            return (await get(address, "/metrics")).value("dead_letters") == 1

        await until(is_measured, 15)
    finally:
        await asyncio.to_thread(worker.kill)


@pytest.mark.limit_s(90)
async def test_backlog_and_its_age_are_of_the_partitions_owned(redis_url: str, tmp_path: Path):
    project = Project(tmp_path, redis_url)
    worker = await asyncio.to_thread(start, project, *QUICK)
    await asyncio.to_thread(worker.kill)
    async with Client(redis_url) as client:
        await client.send("stuck", {"type": "bad"})
        await client.send("other", {"type": "x"})
    # The bad one is tried again after a long while, and is the backlog.
    worker = await asyncio.to_thread(start, project, *QUICK, **SLOW)
    try:
        address = address_of(worker)
        answer = await settled(address, {"done": 1, "retried": 1})
        assert answer.value("takeovers_total") == 8

        async def is_measured() -> bool:
            found = await get(address, "/metrics")
            age_s = found.value("oldest_entry_age_seconds")
            return found.value("backlog_entries") == 1 and 0 < age_s < 60

        await until(is_measured, 15)
    finally:
        await asyncio.to_thread(worker.kill)


@pytest.mark.limit_s(60)
async def test_each_metric_is_there_and_no_other(redis_url: str, tmp_path: Path):
    worker = await asyncio.to_thread(start, Project(tmp_path, redis_url))
    try:
        answer = await get(address_of(worker), "/metrics")
        assert "text/plain; version=0.0.4" in answer.head
        names = {one.name for one in answer.samples()}
        for suffix in ("_bucket", "_count", "_sum"):
            names = {one.removesuffix(suffix) for one in names}
        ours = {one.removeprefix("wherry_") for one in names if one.startswith("wherry_")}
        assert ours == METRICS.keys()
        assert {"process_resident_memory_bytes", "process_cpu_seconds_total"} <= names
        assert {tuple(sorted(one.labels.keys() - {"le"})) for one in answer.samples()} == {
            ("namespace",),
            ("namespace", "outcome"),
        }
        assert {one.labels["namespace"] for one in answer.samples()} == {"wherry"}
    finally:
        await asyncio.to_thread(worker.kill)


async def test_without_prometheus_client_probes_work_and_metrics_say_what_to_install(
    redis_url: str, tmp_path: Path
):
    project = Project(tmp_path, redis_url)
    project.write(
        "bare.py",
        "import sys\nsys.modules['prometheus_client'] = None\n"
        "from wherry.cli.app import app\napp()\n",
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "bare.py", "run", "echo:app", "--http-port", "0"),
        cwd=tmp_path,
        env=project.environment(),
        stderr=PIPE,
    )
    try:
        assert process.stderr is not None
        events: dict[str, dict[str, str]] = {}
        while "ready" not in events:
            event = json.loads(await process.stderr.readline())
            events[event["event"]] = event
        assert "/metrics needs prometheus-client: pip install 'wherry[metrics]'" in events
        address = events["probes and metrics are served"]["address"]
        assert (await get(address, "/readyz")).status == 200
        answer = await get(address, "/metrics")
        assert answer.status == 501
        assert "pip install 'wherry[metrics]'" in answer.body
    finally:
        process.kill()
        await process.communicate()


def test_page_lists_each_metric_as_the_code_does():
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert listed == [(name, *metric) for name, metric in METRICS.items()]


@pytest.mark.limit_s(60)
async def test_commands_of_the_page(redis_url: str, tmp_path: Path):
    [commands] = re.findall(
        r"^```sh\n(.*?)^```$",
        (ROOT / "docs" / "monitoring.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    install, run, *asked = commands.splitlines()
    assert install == "pip install 'wherry[metrics]'"
    project = Project(tmp_path, redis_url)
    project.write("counter.py", "async def app(scope, receive, send):\n    await receive()\n")
    arguments = run.replace("9090", "0").split()[1:]
    worker = await asyncio.to_thread(project.start_worker, *arguments[1:])
    try:
        for line in asked:
            command, _, expected = line.partition("#")
            path = command.split("9090")[1].strip()
            # The first may be asked a moment before it is served.
            answer = await turned(address_of(worker), path, 200, 10.0)
            assert expected.strip() in (answer.body.strip(), "for Prometheus")
    finally:
        await asyncio.to_thread(worker.kill)
