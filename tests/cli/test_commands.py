"""The commands together, on a real server: a worker, and what people type beside it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import LIMIT_S, Project, Running, command
from tests.servers import wait_until

HELLO = '{"type": "say", "text": "hello"}'


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


@pytest.fixture
def worker(project: Project) -> Iterator[Running]:
    with project.start_worker("echo:app", "--partitions", "4", "--set", "beat_s=0.1") as running:
        yield running


def test_request_prints_one_line_for_each_reply(project: Project, worker: Running):
    many = '{"type": "say", "parts": [1, "zwei", {"$bytes": "AP8="}]}'
    expected = [
        {"type": "echo", "scope": "a", "part": part} for part in (1, "zwei", {"$bytes": "AP8="})
    ]
    assert project.lines("request", "a", many) == expected
    assert project.lines("request", "a", many, "--stream") == expected


def test_message_is_read_from_standard_input(project: Project, worker: Running):
    done = project.run("request", "a", "-", stdin=HELLO)
    assert json.loads(done.stdout)["part"] == "hello"


def test_replies_show_cause_and_index_and_go_on_behind_an_id(project: Project, worker: Running):
    sent = project.run("send", "a", '{"type": "say", "parts": [1, 2]}').stdout.strip()
    assert project.lines("request", "a", HELLO)  # behind it in the same scope: both are answered
    lines = project.lines("replies", "a")
    assert [(one["cause"], one["index"], one["message"]["part"]) for one in lines[:2]] == [
        (sent, 0, 1),
        (sent, 1, 2),
    ]
    rest = project.lines("replies", "a", "--after", lines[1]["id"])
    assert rest == lines[2:]
    assert rest[0]["message"]["part"] == "hello"


def test_repeated_message_id_is_taken_once(project: Project):
    first = project.run("send", "a", HELLO, "--message-id", "m1").stdout
    assert first.strip()
    assert project.run("send", "a", HELLO, "--message-id", "m1").stdout == first


def test_follower_gets_what_comes_and_ends_quietly_with_ctrl_c(project: Project, worker: Running):
    with project.start("replies", "a", "--follow") as follower:
        assert follower.process.stdout is not None
        for text in ("one", "two"):
            project.run("send", "a", json.dumps({"type": "say", "text": text}))
            assert json.loads(follower.process.stdout.readline())["message"]["part"] == text
        assert follower.stop(signal.SIGINT) == 130
        assert follower.stderr == ""


def test_follower_ends_quietly_when_nobody_reads_it_any_more(project: Project, worker: Running):
    assert project.run("request", "a", HELLO).returncode == 0
    with project.start("replies", "a", "--follow") as follower:
        assert follower.process.stdout is not None
        assert follower.process.stdout.readline()
        follower.process.stdout.close()
        assert follower.process.wait(LIMIT_S) == 0
        assert follower.stderr == ""


def test_closed_pipe_is_no_error(project: Project, worker: Running):
    many = json.dumps({"type": "say", "parts": list(range(500))})
    assert project.run("request", "a", many).returncode == 0
    with subprocess.Popen(
        command("replies", "a"),
        cwd=project.directory,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as printing:
        assert printing.stdout is not None
        printing.stdout.close()
        assert printing.wait(LIMIT_S) == 0
        assert printing.stderr is not None
        assert printing.stderr.read() == ""


def test_request_that_nobody_answers_says_so(project: Project):
    done = project.run("request", "a", HELLO, "--timeout", "0.2")
    assert done.returncode == 1
    assert "is a worker running?" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_shows_worker_owner_backlog_and_what_is_in_flight(project: Project, worker: Running):
    assert project.run("send", "a", '{"type": "slow"}').returncode == 0

    def found() -> dict[str, object]:
        return json.loads(project.run("status", "--json").stdout)

    wait_until(lambda: (found()["in_flight"], found()["free"]) == (1, 0), "is in flight", LIMIT_S)
    status = found()
    name = worker.events[0]["worker"]
    assert status["backlog"] == 1
    assert [one["owner"] for one in status["partitions"]] == [name] * 4  # type: ignore[attr-defined]
    table = project.run("status").stdout
    assert "workers 1, partitions 4 (0 free), dead letters 0" in table
    assert re.search(r"^backlog 1 \(oldest .*\), in flight 1\b", table, re.MULTILINE), table
    worker.stop(signal.SIGTERM, signal.SIGTERM)


def test_events_of_a_worker_are_json_lines_that_name_the_store(project: Project, worker: Running):
    assert worker.stop(signal.SIGTERM) == 0
    starting = worker.events[0]
    assert starting["event"] == "starting"
    assert starting["store"] == project.url
    assert (starting["app"], starting["namespace"], starting["partitions"]) == (
        "echo:app",
        "wherry",
        "4",
    )
    assert [one["worker"] for one in worker.events if one["event"] == "ready"] == [
        starting["worker"]
    ]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains(project: Project, loop: str, number: int):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with project.start_worker("echo:app", "--loop", loop) as running:
        assert project.run("request", "a", HELLO).returncode == 0
        assert running.stop(number) == 0
        assert "a second one hands back at once" in running.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_second_signal_hands_back_at_once(project: Project, loop: str):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with project.start_worker("echo:app", "--loop", loop, "--set", "beat_s=0.1") as running:
        project.run("send", "a", '{"type": "slow"}')
        wait_until(lambda: in_flight(project) == 1, "is in flight", LIMIT_S)
        assert running.stop(signal.SIGTERM, signal.SIGINT) == 6
        assert "Traceback" not in running.stderr
        said = [event["event"] for event in running.events]
    after_start = said[said.index("ready") + 1 :]
    assert after_start == ["signal received", "signal received", "worker stopped"]
    assert json.loads(project.run("status", "--json").stdout)["backlog"] == 1


def test_drain_deadline_has_its_own_exit_code(project: Project):
    with project.start_worker(
        "echo:app", "--drain-timeout", "0.2", "--set", "beat_s=0.1"
    ) as running:
        project.run("send", "a", '{"type": "slow"}')
        wait_until(lambda: in_flight(project) == 1, "is in flight", LIMIT_S)
        assert running.stop(signal.SIGTERM) == 6


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_third_signal_ends_a_worker_whose_application_keeps_the_loop_busy(
    project: Project, loop: str
):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    project.write(
        "spinning.py",
        "import sys\nasync def app(scope, receive, send):\n    await receive()\n"
        "    print('spinning', file=sys.stderr, flush=True)\n    while True: pass\n",
    )
    with project.start_worker("spinning:app", "--loop", loop, "--lifespan", "off") as running:
        project.run("send", "a", HELLO)
        running.wait_for("spinning")
        running.process.send_signal(signal.SIGTERM)

        def is_gone() -> bool:
            running.process.send_signal(signal.SIGINT)
            return running.process.poll() is not None

        wait_until(is_gone, "the third signal kills", LIMIT_S)
        assert running.process.returncode == -signal.SIGINT


def in_flight(project: Project) -> int:
    return json.loads(project.run("status", "--json").stdout)["in_flight"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_worker_runs_just_ends_it(project: Project, number: int):
    project.write(
        "late.py",
        "import sys, threading\nprint('importing', file=sys.stderr, flush=True)\n"
        "threading.Event().wait(60)\n",
    )
    with project.start("run", "late:app") as running:
        running.wait_for("importing")
        assert running.stop(number) == 0
        assert running.stderr == "importing\n"


def test_signal_that_a_finalizer_swallows_ends_the_worker_all_the_same(project: Project):
    project.write(
        "late.py",
        "import os, signal\nfrom echo import app\nclass Last:\n    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\nLast()\n",
    )
    with project.start("run", "late:app") as running:
        assert running.process.wait(LIMIT_S) == 0
        assert "KeyboardInterrupt" in running.stderr  # it was swallowed
        assert '"event": "ready"' not in running.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_exit_code_is_the_commands_own_where_nothing_can_be_logged(project: Project):
    """As when its terminal was closed, or the disk of its log is full."""
    with open("/dev/full", "w") as full:
        worker = subprocess.Popen(
            command("run", "echo:app"),
            cwd=project.directory,
            env=project.environment(),
            stderr=full,
        )
    try:
        wait_until(
            lambda: json.loads(project.run("status", "--json").stdout)["members"], "is up", LIMIT_S
        )
        worker.terminate()
        assert worker.wait(LIMIT_S) == 0
    finally:
        worker.kill()
        worker.wait()


def test_commands_of_one_project_share_the_embedded_store(tmp_path: Path):
    project = Project(tmp_path)
    project.write("pyproject.toml", "[tool.wherry]\napp = 'echo:app'\npartitions = 4\n")
    with project.start("run") as running:
        running.wait_for('"event": "ready"')
        place = f"embedded store, this machine only: {tmp_path / '.wherry'}"
        assert running.events[0]["store"] == place
        assert project.lines("request", "a", HELLO) == [
            {"type": "echo", "scope": "a", "part": "hello"}
        ]
        assert "workers 1, partitions 4 (0 free)" in project.run("status").stdout
        assert running.stop(signal.SIGTERM) == 0


def test_worker_in_memory_warns(tmp_path: Path):
    with Project(tmp_path, "memory://").start_worker("echo:app") as running:
        warnings = [one["event"] for one in running.events if one["level"] == "warning"]
        assert any(text.startswith("memory store: no other process") for text in warnings)
        assert running.stop(signal.SIGTERM) == 0


def test_help_loads_nothing_that_only_a_command_needs(tmp_path: Path):
    """Heavy imports would be felt at every --help."""
    project = Project(tmp_path)
    done = subprocess.run(
        [command()[0], "-X", "importtime", *command("run", "--help")[1:]],
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert "--drain-timeout" in done.stdout
    loaded = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "wherry.cli.app" in loaded
    assert not loaded & {"wherry.cli.serve", "wherry.cli.messages", "rich.console", "uvloop"}
    assert not loaded & {"wherry.worker", "wherry.client", "redis", "fakeredis"}


def test_version(tmp_path: Path):
    done = Project(tmp_path).run("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "wherry")
