"""The commands for operators, as transcripts: on an empty namespace, a busy one, and shut out."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import LIMIT_S, Project, Running
from tests.servers import Server, wait_until
from tests.servers_plugin import StartServer

MOODY = """
import asyncio

async def app(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "slow":
            await asyncio.sleep(60)
        if message["type"] == "bad":
            raise ValueError("planned")
        await send({"type": "done"})
"""
QUICK = ("--partitions", "4", "--lifespan", "off", "--set", "beat_s=0.1")
SHOWING = [
    ("status",),
    ("partitions",),
    ("workers", "ls"),
    ("scopes", "ls"),
    ("scopes", "show", "slow"),
    ("top", "--once"),
]
ACTING = [
    ("workers", "drain", "some"),
    ("workers", "stop", "some"),
    ("pause",),
    ("resume",),
]
ON_NOTHING = [
    (("status",), 0, "nobody has used it yet"),
    (("partitions",), 0, "nobody has used it yet"),
    (("workers", "ls"), 0, "nobody has used it yet"),
    (("scopes", "ls"), 0, "nobody has used it yet"),
    (("top", "--once"), 0, "nobody has used it yet"),
    (("top",), 2, "try wherry top --once"),
    (("scopes", "show", "a"), 2, "nobody has used namespace 'wherry'"),
    (("scopes", "show", "~a"), 2, "may not start with '~'"),
    (("scopes", "ls", "--by", "size"), 2, "order must be one of age, waiting, attempts"),
    (("workers", "drain", "x"), 2, "no worker of namespace 'wherry' is called 'x'"),
    (("workers", "stop", "x"), 2, "no worker of namespace 'wherry' is called 'x'"),
    (("pause",), 2, "nobody has used namespace 'wherry'"),
    (("resume",), 2, "nobody has used namespace 'wherry'"),
]


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    made = Project(tmp_path, redis_url)
    made.write("moody.py", MOODY)
    return made


def read(project: Project, *arguments: str) -> Any:
    """The JSON of a command that succeeds."""
    done = project.run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def send(project: Project, scope: str, kind: str) -> None:
    assert project.run("send", scope, json.dumps({"type": kind})).returncode == 0


def name_of(worker: Running) -> str:
    return worker.events[0]["worker"]


@pytest.mark.parametrize(("arguments", "code", "text"), ON_NOTHING)
def test_on_a_namespace_that_nobody_has_used(
    project: Project, redis_server: Server, arguments: tuple[str, ...], code: int, text: str
):
    done = project.run(*arguments)
    assert done.returncode == code, done.stderr
    assert text in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr
    if code:
        assert done.stdout == ""
    assert redis_server.command("DBSIZE") == b":0\r\n", "nothing is made"


@pytest.mark.parametrize("arguments", [*SHOWING, *ACTING])
def test_with_a_wrong_url(tmp_path: Path, arguments: tuple[str, ...]):
    with socket.socket() as taken:  # bound but not listening: refused, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        project = Project(tmp_path, f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        done = project.run(*arguments)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_rights(tmp_path: Path, start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "nobody", "on", ">secret", "~*", "&*", "+client", "+ping")
    project = Project(tmp_path, f"redis://nobody:secret@127.0.0.1:{server.port}/0")
    for arguments in [*SHOWING, *ACTING]:
        done = project.run(*arguments)
        assert (done.returncode, done.stdout) == (5, ""), (arguments, done.stderr)
        assert "refuses a command" in done.stderr
        assert "secret" not in done.stderr
        assert "Traceback" not in done.stderr


def test_busy_namespace_is_shown(project: Project):
    with project.start_worker("moody:app", *QUICK) as worker:
        send(project, "slow", "slow")
        send(project, "slow", "quick")
        send(project, "quick", "quick")
        wait_until(lambda: read(project, "status")["in_flight"] == 2, "two are in hand", LIMIT_S)
        status = project.run("status").stdout
        assert "workers 1, partitions 4 (0 free), dead letters 0\nbacklog 2 (oldest" in status
        owned = [one for one in read(project, "partitions") if one["backlog"]]
        assert [(one["owner"], one["backlog"]) for one in owned] == [(name_of(worker), 2)]
        assert owned[0]["oldest_ms"] > 0
        table = [line.split() for line in project.run("partitions").stdout.splitlines()]
        assert [str(owned[0]["partition"]), name_of(worker)] in [cells[:2] for cells in table]

        (told,) = read(project, "workers", "ls")
        assert (told["worker"], told["state"], told["owned"]) == (name_of(worker), "running", 4)
        assert (told["busy"], told["in_flight"], told["instances"], told["done"]) == (1, 2, 2, 1)
        assert told["pid"] == worker.process.pid
        assert told["up_ms"] > 0
        assert "WORKER" in project.run("workers", "ls").stdout

        listed = read(project, "scopes", "ls")
        assert listed["total"] == 2
        assert listed["silent"] == []
        assert [(one["scope"], one["state"]) for one in listed["scopes"]] == [
            ("slow", "busy"),
            ("quick", "idle"),
        ]
        assert (listed["scopes"][0]["waiting"], listed["scopes"][0]["attempt"]) == (1, 1)
        assert "slow   busy" in project.run("scopes", "ls", "--by", "waiting").stdout

        shown = project.run("scopes", "show", "slow").stdout
        assert f"owner       {name_of(worker)} (lease" in shown
        assert "instance    busy" in shown
        assert "in hand     1 wait in the inbox, 0 are deferred" in shown
        assert "in stream   2 unfinished, among all 2 in its partition" in shown
        assert "has not failed" in shown
        done = project.run("workers", "stop", name_of(worker)[-6:])
        assert done.returncode == 0, done.stderr
        assert f"worker {name_of(worker)} has left after" in done.stdout
        assert worker.process.wait(LIMIT_S) == 6, "a running message was cut off"
    assert read(project, "status")["backlog"] == 2


def test_failing_scope_is_shown_with_its_error(project: Project):
    with project.start_worker("moody:app", *QUICK, "--set", "retry_backoff_s=60"):
        send(project, "sad\x1b[31m", "bad")

        def tried() -> Any:
            return read(project, "scopes", "show", "sad\x1b[31m")["attempts"]

        wait_until(tried, "it has failed", LIMIT_S)
        assert tried()["failed"] == 1
        assert tried()["error"] == "ValueError: planned"
        assert tried()["not_before_ms"] > 0
        shown = project.run("scopes", "show", "sad\x1b[31m").stdout
        assert "instance    backoff" in shown
        assert "last error  ValueError: planned" in shown
        assert "\x1b" not in shown
        listed = project.run("scopes", "ls", "--by", "attempts").stdout
        assert "backoff" in listed
        assert "\x1b" not in listed


def test_scope_of_a_partition_without_owner_is_shown(project: Project):
    with project.start_worker("moody:app", *QUICK) as worker:
        assert worker.stop(signal.SIGTERM) == 0
    send(project, "slow", "slow")
    shown = project.run("scopes", "show", "slow").stdout
    assert "owner       nobody" in shown
    assert "instance    absent" in shown
    assert "1 unfinished, among all 1 in its partition" in shown
    done = project.run("scopes", "ls")
    assert "scopes in hand 0" in done.stdout


def test_pause_and_resume(project: Project):
    with project.start_worker("moody:app", *QUICK) as worker:
        send(project, "quick", "quick")
        assert read(project, "pause") == {
            "namespace": "wherry",
            "paused": True,
            "changed": True,
            "workers": [name_of(worker)],
            "busy": 0,
        }
        assert "PAUSED for" in project.run("status").stdout
        assert read(project, "workers", "ls")[0]["state"] == "paused"
        assert "was paused already" in project.run("pause").stdout
        done = project.run("resume")
        assert done.stdout == "namespace wherry goes on: 1 worker\n"
        assert project.run("resume").stdout == "namespace wherry was not paused: 1 worker\n"
        assert read(project, "status")["paused_ms"] is None


def test_pause_says_who_does_not_hear_it(project: Project):
    with project.start_worker("moody:app", *QUICK) as worker:
        worker.process.send_signal(signal.SIGSTOP)
        done = project.run("pause", "--timeout", "0.3")
        assert done.returncode == 1
        assert f"these workers did not say so: {name_of(worker)}" in done.stderr
        asked = project.run("scopes", "ls", "--timeout", "0.3")
        assert f"no answer in time from {name_of(worker)}" in asked.stdout
        worker.process.send_signal(signal.SIGCONT)
        assert project.run("pause").returncode == 0


def test_drain_that_takes_too_long_says_so(project: Project):
    with project.start_worker("moody:app", *QUICK) as worker:
        send(project, "slow", "slow")
        wait_until(lambda: read(project, "status")["in_flight"] == 1, "it is in hand", LIMIT_S)
        done = project.run("workers", "drain", name_of(worker), "--wait", "0.3")
        assert done.returncode == 1
        assert "was asked and has not left within 0.3 s" in done.stderr
        wait_until(
            lambda: read(project, "workers", "ls")[0]["state"] == "draining", "drains", LIMIT_S
        )
        assert read(project, "workers", "stop", name_of(worker), "--wait", "0") == {
            "worker": name_of(worker),
            "asked": "stop",
            "left_after_ms": None,
        }
        assert worker.process.wait(LIMIT_S) == 6
