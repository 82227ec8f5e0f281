"""--watch: in place on a terminal, appended elsewhere, ended quietly, patient with an outage."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.cli.commands import LIMIT_S, Project
from tests.cli.terminals import ENTER, LEAVE, terminal
from tests.servers import wait_until
from tests.servers_plugin import StartServer


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_terminal_is_redrawn_in_place_and_left_as_it_was(project: Project, number: int):
    with terminal(project, "status", "--watch", "--every", "0.1") as shown:
        wait_until(lambda: shown.written.count("\x1b[H") >= 3, "three pictures", LIMIT_S)
        assert shown.written.startswith(ENTER)
        assert "every 0.1 s, Ctrl-C ends" in shown.written
        assert LEAVE not in shown.written
        shown.process.send_signal(number)
        _, complaints = shown.process.communicate(timeout=LIMIT_S)
        assert (shown.process.returncode, complaints) == (0, b"")
        assert shown.written.endswith(LEAVE)
        assert shown.written.count(ENTER) == shown.written.count(LEAVE) == 1


def test_elsewhere_pictures_are_appended(project: Project):
    with project.start("status", "--watch", "--every", "0.1") as watching:
        assert watching.process.stdout is not None
        lines = [watching.process.stdout.readline() for _ in range(6)]
        assert lines[:3] == lines[3:]
        assert lines[2] == "\n"
        assert watching.stop(signal.SIGINT) == 0
        assert watching.stderr == ""


def test_json_is_a_line_for_each_look(project: Project):
    with project.start("status", "--watch", "--every", "0.1", "--json") as watching:
        assert watching.process.stdout is not None
        for _ in range(2):
            assert json.loads(watching.process.stdout.readline())["partitions"] == []
        assert watching.stop(signal.SIGINT) == 0


def test_outage_is_told_and_waited_for(tmp_path: Path, start_server: StartServer):
    server = start_server()
    project = Project(tmp_path, server.url)
    with project.start("status", "--watch", "--every", "0.1") as watching:
        assert watching.process.stdout is not None
        assert watching.process.stdout.readline()
        server.stop()
        watching.wait_for("cannot be reached")
        server.start()
        while watching.process.stdout.readline():
            if "nobody has used it yet" in watching.process.stdout.readline():
                break
        assert watching.stop(signal.SIGINT) == 0


def test_outage_at_the_first_look_is_an_error_before_the_screen_changes(tmp_path: Path):
    project = Project(tmp_path, "redis://127.0.0.1:1/0")
    with terminal(project, "status", "--watch") as shown:
        _, complaints = shown.process.communicate(timeout=LIMIT_S)
        assert shown.process.returncode == 4
        assert b"cannot be reached" in complaints
        assert shown.written == ""
