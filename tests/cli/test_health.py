"""`wherry health`: what Redis knows of a worker, in one line and quickly."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import LIMIT_S, Project, Running, command
from tests.servers import Server, wait_until
from tests.servers_plugin import StartServer
from wherry.broker.plain import PlainConnection
from wherry.broker.urls import parse_url
from wherry.cli import probes
from wherry.cli.health import read_options
from wherry.errors import StoreRefused, StoreUnavailable

# Whatever of these is loaded is felt at each probe.
HEAVY = {"typer", "click", "rich", "redis", "fakeredis", "asyncio", "ssl", "hiredis", "echo"}


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


@pytest.fixture
def worker(project: Project) -> Iterator[Running]:
    flags = ("--partitions", "4", "--set", "beat_s=0.1", "--lease", "1")
    with project.start_worker("echo:app", *flags) as running:
        yield running


def name_of(worker: Running) -> str:
    return str(worker.events[0]["worker"])


def line_of(project: Project, *options: str, code: int, **variables: str) -> str:
    done = project.run("health", *options, **variables)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return line


def test_worker_that_can_claim_and_read_is_well(project: Project, worker: Running):
    wait_until(lambda: "holds 4" in project.run("health").stdout, "its second beat", LIMIT_S)
    for options in ((), ("--any",), ("--worker", name_of(worker))):
        line = line_of(project, *options, code=0)
        assert line.startswith(f"ok: worker {name_of(worker)} can claim and read, beat 0.")
        assert line.endswith("holds 4 partitions")
    found = json.loads(line_of(project, "--json", code=0))
    assert found["healthy"] is True
    assert found["workers"][0]["host"] == socket.gethostname()


def test_other_workers_and_other_namespaces_do_not_count(project: Project, worker: Running):
    assert line_of(project, "--worker", "nobody", code=1) == "unhealthy: worker nobody: no member"
    line = line_of(project, "--any", "--namespace", "other", code=1)
    assert line == "unhealthy: no worker is a member of namespace other"


def test_worker_of_another_host_counts_only_for_any(
    project: Project, worker: Running, redis_server: Server
):
    worker.process.send_signal(signal.SIGSTOP)  # or its next beat would say where it runs
    try:
        key = f"{{wherry}}:member:{name_of(worker)}"
        redis_server.command("HSET", key, "host", "elsewhere")
        redis_server.command("PEXPIRE", key, "100000")
        assert line_of(project, "--any", code=0)
        line = line_of(project, code=1)
        place = f"host {socket.gethostname()}"
        assert line == f"unhealthy: no worker of {place} is a member of namespace wherry"
    finally:
        worker.process.send_signal(signal.SIGCONT)


def test_worker_that_does_not_beat_is_not_well(project: Project, worker: Running):
    worker.process.send_signal(signal.SIGSTOP)
    try:
        said: list[str] = []

        def is_told() -> bool:
            said.append(project.run("health").stdout)
            return "longer than its lease" in said[-1]

        wait_until(is_told, "silence", LIMIT_S)
        wait_until(lambda: line_of_any(project) != said[-1], "forgotten", LIMIT_S)
        assert line_of(project, "--worker", name_of(worker), code=1)
    finally:
        worker.process.send_signal(signal.SIGCONT)
    wait_until(lambda: project.run("health").returncode == 0, "well again", LIMIT_S)


def line_of_any(project: Project) -> str:
    return project.run("health").stdout


def test_worker_whose_reads_are_not_answered_is_not_well(project: Project, redis_server: Server):
    """As its beats say then: see `Duties.can_claim`."""
    seconds = int(redis_server.command("TIME").split()[2])
    redis_server.command("ZADD", "{wherry}:members", str(seconds * 1000), "w")
    fields = ("host", socket.gethostname(), "can_claim", "0", "partitions", "3")
    redis_server.command("HSET", "{wherry}:member:w", *fields)
    redis_server.command("PEXPIRE", "{wherry}:member:w", "100000")
    assert line_of(project, code=1) == "unhealthy: worker w: its reads are not answered"
    redis_server.command("HSET", "{wherry}:member:w", "can_claim", "1")
    assert line_of(project, code=0).startswith("ok: worker w can")


def test_stopped_worker_is_not_well(project: Project, worker: Running):
    assert worker.stop(signal.SIGTERM) == 0
    assert line_of(project, "--worker", name_of(worker), code=1).endswith("no member")


def test_server_that_does_not_answer_is_waited_for_no_longer_than_asked(
    project: Project, start_server: StartServer
):
    server = start_server()
    server.pause()
    try:
        began = time.monotonic()
        line = line_of(project, "--timeout", "0.3", code=1, WHERRY_URL=server.url)
        assert time.monotonic() - began < 5
    finally:
        server.resume()
    assert "cannot be reached: timed out" in line


def test_embedded_store_is_asked_and_not_started(tmp_path: Path):
    project = Project(tmp_path)
    project.write("pyproject.toml", "[tool.wherry]\npartitions = 4\n")
    assert "no server listens there" in line_of(project, code=1)
    assert not (tmp_path / ".wherry").exists()
    with project.start_worker("echo:app"):
        assert line_of(project, code=0).startswith("ok")


def test_nothing_heavy_is_loaded(project: Project, worker: Running):
    done = subprocess.run(
        [command()[0], "-X", "importtime", *command("health")[1:]],
        cwd=project.directory,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    loaded = {line.rsplit("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "wherry" in loaded
    assert not loaded & HEAVY


def test_it_takes_less_cpu_than_a_quarter_of_a_second(project: Project, worker: Running):
    """Of CPU, as the machine may have more to do; what is measured in docs/commands.md is time."""
    before = os.times()
    for _ in range(5):
        assert project.run("health").returncode == 0
    after = os.times()
    used_s = sum(after[2:4]) - sum(before[2:4])
    assert used_s / 5 < 0.25


def test_short_way_knows_the_options_of_the_command():
    parameters = inspect.signature(probes.health).parameters
    for name in parameters:
        flag = "--" + {"any_": "any", "as_json": "json", "set_": "set"}.get(name, name)
        value = [] if flag in ("--any", "--json") else ["1"]
        assert read_options([flag, *value]), flag
    assert read_options(["--url=redis://h", "--set", "a=1", "--set=b=2", "--any"]) == {
        "url": "redis://h",
        "set": ["a=1", "b=2"],
        "any": True,
    }
    for unknown in (
        ["--help"],
        ["x"],
        ["--worker"],
        ["--timeout", "x"],
        ["--any=1"],
        ["--timeout=-1"],
    ):
        assert read_options(unknown) is None


def test_both_ways_say_the_same(project: Project, worker: Running):
    code = "import sys; from wherry.cli.app import main; sys.argv[0] = 'wherry'; main()"
    slow = subprocess.run(
        [sys.executable, "-c", code, "health", "--worker", name_of(worker), "--json"],
        env=project.environment(),
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    quick = json.loads(line_of(project, "--worker", name_of(worker), "--json", code=0))
    found = json.loads(slow.stdout)
    for one in (quick, found):
        one["workers"][0].pop("beat_ms")
    assert found == quick


def test_mistake_in_the_settings_is_one_of_usage(project: Project):
    for arguments in (("--set", "x=1"), ("--url", "memory://"), ("--worker",), ("--nothing",)):
        done = project.run("health", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr


def test_plain_connection_speaks_what_a_server_answers(start_server: StartServer):
    server = start_server(password="se/cret")
    url = f"redis://:se%2Fcret@127.0.0.1:{server.port}/3"
    with PlainConnection(parse_url(url), within_s=10) as plain:
        plain.calls([("SET", "k", "v" * 100_000), ("RPUSH", "l", 1, b"\xff")])
        commands: list[tuple[str | int, ...]] = [
            ("GET", "k"), ("GET", "none"), ("LRANGE", "l", 0, -1), ("DBSIZE",), ("LPOP", "k"),
        ]  # fmt: skip
        answers: list[Any] = plain.calls(commands)
    assert answers[:4] == [b"v" * 100_000, None, [b"1", b"\xff"], 2]
    assert "WRONGTYPE" in str(answers[4])
    with PlainConnection(parse_url(f"redis://127.0.0.1:{server.port}/0"), within_s=10) as plain:
        (answer,) = plain.calls([("PING",)])
    assert isinstance(answer, StoreRefused)
    with pytest.raises(StoreRefused, match="password"):
        PlainConnection(parse_url(f"redis://:wrong@127.0.0.1:{server.port}/0"), within_s=10)
    with pytest.raises(StoreUnavailable):
        PlainConnection(parse_url("unix:///no/socket"), within_s=1)


def test_package_brings_its_names_when_they_are_asked_for():
    package = importlib.import_module("wherry")
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = package.Nothing
