"""Each command of operators with an empty namespace, a busy one, no Redis and no rights."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.cli.commands import LIMIT_S, Project
from tests.cli.letters import Planted
from tests.servers import wait_until
from tests.servers_plugin import StartServer

LETTER = "1/5-0"
# command -> exit code and a part of what it says: empty, busy, no Redis, no rights.
EXPECTED: dict[tuple[str, ...], tuple[tuple[int, str], ...]] = {
    ("dlq", "ls"): (
        (0, "0 dead letters, 0 held, 0 looked at"),
        (0, "ValueError: no"),
        (4, "cannot be reached"),
        (5, "grant it with ACL SETUSER"),
    ),
    ("dlq", "show", LETTER): (
        (1, f"there is no dead letter {LETTER} in namespace wherry"),
        (0, "Traceback: here"),
        (4, "cannot be reached"),
        (5, "grant it with ACL SETUSER"),
    ),
    ("dlq", "replay", "--all", "--dry-run"): (
        (0, "0 letters would be replayed"),
        (0, "1 letter would be replayed"),
        (4, "cannot be reached"),
        (5, "grant it with ACL SETUSER"),
    ),
    ("dlq", "replay", LETTER): (
        (1, f"0 letters replayed; not there: {LETTER}"),
        (0, "1 letter replayed"),
        (4, "cannot be reached"),
        (5, "grant it with ACL SETUSER"),
    ),
    ("dlq", "drop", LETTER): (
        (1, f"0 letters dropped; not there: {LETTER}"),
        (1, f"0 letters dropped; not there: {LETTER}"),  # it was replayed just before
        (4, "cannot be reached"),
        (5, "grant it with ACL SETUSER"),
    ),
    ("purge", "--yes"): (
        (0, "there are no keys of that namespace"),
        (1, "has 1 live workers"),
        (4, "cannot be reached"),
        (5, "grant it with ACL SETUSER"),
    ),
    ("doctor",): (
        (0, "nobody has used wherry yet"),
        (0, "1, owning 4 of 4 partitions"),
        (4, "cannot be reached"),
        (8, "may play no part at all"),
    ),
    ("health",): (
        (1, "unhealthy: no worker of host"),
        (0, "can claim and read"),
        (1, "cannot be reached"),
        (1, "grant it with ACL SETUSER"),
    ),
    ("config", "show"): tuple((0, "WHERRY_URL") for _ in range(4)),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def check(project: Project, url: str, case: int) -> None:
    for arguments, cases in EXPECTED.items():
        code, text = cases[case]
        done = project.run(*arguments, WHERRY_URL=url)
        said = done.stdout + done.stderr
        assert text in " ".join(said.split()), f"{arguments}: {said}"
        assert done.returncode == code, f"{arguments}: {said}"
        assert "Traceback (" not in said
        if code in (4, 5):
            assert done.stdout == ""
            assert len(done.stderr.splitlines()) == 1
        assert ":pw@" not in said


def test_empty_namespace(project: Project, redis_url: str):
    check(project, redis_url, 0)


@pytest.mark.limit_s(120)
def test_busy_namespace(project: Project, redis_url: str):
    with Planted(redis_url) as planted:
        planted.bury(next(s for s in "abcdefgh" if planted.place(s) == 1), "5-0")
        flags = ("--set", "beat_s=0.1")
        with project.start_worker("echo:app", *flags, WHERRY_URL=redis_url) as worker:
            slow = ("send", "z", '{"type": "slow"}')
            assert project.run(*slow, WHERRY_URL=redis_url).returncode == 0

            def is_at_work() -> bool:
                said = project.run("status", WHERRY_URL=redis_url).stdout
                return "in flight 1" in said and "(0 free)" in said

            wait_until(is_at_work, "at work", LIMIT_S)
            check(project, redis_url, 1)
            worker.stop(signal.SIGTERM, signal.SIGTERM)


def test_no_redis(project: Project):
    with socket.socket() as taken:  # bound but not listening: refused, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        check(project, f"redis://127.0.0.1:{taken.getsockname()[1]}/0", 2)


def test_no_rights(project: Project, start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "weak", "on", ">pw", "-@all")
    check(project, f"redis://weak:pw@127.0.0.1:{server.port}/0", 3)
