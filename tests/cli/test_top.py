"""``wherry top`` on a terminal: what it shows, its keys, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import LIMIT_S, Project
from tests.cli.terminals import ENTER, LEAVE, Terminal, terminal
from tests.servers import wait_until
from tests.servers_plugin import StartServer
from wherry.cli.desk import faster, slower

TOP = ("top", "--every", "0.1")
SLOW = re.compile(r"^alice +[\d.]+ s  busy +alice +1 ", re.MULTILINE)
WORKER = ("echo:app", "--partitions", "4", "--set", "beat_s=0.1")


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


def wait_for(shown: Terminal, text: str) -> None:
    def is_shown() -> bool:
        assert shown.process.poll() is None, shown.process.communicate()
        return text in shown.picture

    wait_until(is_shown, text, LIMIT_S)


def check_left(shown: Terminal, code: int) -> None:
    """It has ended, and the terminal is as it was."""
    _, complaints = shown.process.communicate(timeout=LIMIT_S)
    assert (shown.process.returncode, complaints) == (code, b"")
    assert shown.written.startswith(ENTER)
    assert shown.written.endswith(LEAVE)
    assert shown.written.count(ENTER) == shown.written.count(LEAVE)
    assert shown.modes == shown.modes_before


def told(project: Project) -> dict[str, Any]:
    done = project.run("workers", "ls", "--json")
    assert done.returncode == 0, done.stderr
    [worker] = json.loads(done.stdout)
    return worker


@pytest.mark.limit_s(120)
def test_busy_worker_is_shown_until_q(project: Project):
    with (
        project.start_worker(*WORKER, "--http-port", "0") as worker,
        terminal(project, *TOP) as shown,
    ):
        for message in ('{"type": "say"}', '{"type": "slow"}', '{"type": "say"}'):
            assert project.run("send", "alice", message).returncode == 0
        name = worker.events[0]["worker"]
        for text in (name[:5], "workers 1  partitions 4", "busy 1"):
            wait_for(shown, text)
        wait_until(lambda: SLOW.search(shown.picture), "the slow scope", LIMIT_S)
        wait_until(lambda: told(project)["done"] == 1, "one is done", LIMIT_S)
        wait_for(shown, "replies")
        assert not shown.modes[3] & (termios.ECHO | termios.ICANON)
        shown.press(b"q")
        check_left(shown, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_the_terminal_as_it_was(project: Project, number: int):
    with terminal(project, *TOP) as shown:
        wait_for(shown, "nobody has used it yet")
        shown.process.send_signal(number)
        check_left(shown, 0)


def test_keys_choose_when_to_look(project: Project):
    with terminal(project, "top") as shown:
        wait_for(shown, "q quit  p pause  + - every 2 s")
        shown.press(b"-")
        wait_for(shown, "every 1 s")
        shown.press(b"++")
        wait_for(shown, "every 5 s")
        shown.press(b"p")
        wait_for(shown, "p go on (paused)")
        shown.press(b"\x1b[A\x1bOpx")  # an arrow, a key of the keypad, one that means nothing
        shown.press(b"p")
        wait_for(shown, "p pause")
        shown.press(b"q")
        check_left(shown, 0)


def test_window_may_change_its_size(project: Project):
    with project.start_worker(*WORKER), terminal(project, *TOP) as shown:
        wait_for(shown, "HANDLE99")
        assert "INSTANCES" not in shown.picture
        shown.resize(120, 40)
        shown.process.send_signal(signal.SIGWINCH)
        wait_for(shown, "INSTANCES")
        shown.press(b"q")
        check_left(shown, 0)


def test_while_it_is_stopped_the_terminal_is_as_it_was(project: Project):
    with terminal(project, *TOP) as shown:
        wait_for(shown, "q quit")
        shown.process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(shown.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert shown.written.endswith(LEAVE)
        assert shown.modes == shown.modes_before
        shown.process.send_signal(signal.SIGCONT)
        wait_until(lambda: shown.written.count(ENTER) == 2, "it draws again", LIMIT_S)
        wait_for(shown, "q quit")
        shown.press(b"q")
        check_left(shown, 0)


def test_outage_is_shown_and_waited_for(tmp_path: Path, start_server: StartServer):
    server = start_server()
    with terminal(Project(tmp_path, server.url), *TOP) as shown:
        wait_for(shown, "nobody has used it yet")
        server.stop()
        wait_for(shown, "cannot be reached")
        assert "nobody has used it yet" in shown.picture, "the last look stays"
        server.start()
        wait_until(lambda: "cannot be reached" not in shown.picture, "it goes on", LIMIT_S)
        shown.press(b"q")
        check_left(shown, 0)


def test_keyboard_is_heard_during_an_outage(tmp_path: Path, start_server: StartServer):
    server = start_server()
    with terminal(Project(tmp_path, server.url), *TOP) as shown:
        wait_for(shown, "nobody has used it yet")
        os.kill(server.pid, signal.SIGSTOP)  # connects, and never answers
        try:
            shown.press(b"q")
            check_left(shown, 0)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_right_that_is_taken_away_ends_it_in_good_order(tmp_path: Path, start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "viewer", "on", ">pw", "~*", "&*", "+@all")
    project = Project(tmp_path, f"redis://viewer:pw@127.0.0.1:{server.port}/0")
    with terminal(project, *TOP) as shown:
        wait_for(shown, "nobody has used it yet")
        server.command("ACL", "SETUSER", "viewer", "-@all")
        _, complaints = shown.process.communicate(timeout=LIMIT_S)
        assert shown.process.returncode == 5
        assert b"refuses" in complaints
        assert b"Traceback" not in complaints
        assert shown.written.endswith(LEAVE)
        assert shown.modes == shown.modes_before


def test_who_may_not_ask_workers_sees_all_but_the_scopes(tmp_path: Path, start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "viewer", "on", ">pw", "~*", "&*", "+@all", "-publish")
    project = Project(tmp_path, server.url)
    with project.start_worker(*WORKER):
        done = project.run("top", "--once", "--url", f"redis://viewer:pw@127.0.0.1:{server.port}/0")
        assert done.returncode == 0, done.stderr
        assert "workers 1  partitions 4" in done.stdout
        assert "it takes +publish and +blpop\n" in done.stdout


def test_outage_at_the_first_look_is_an_error_before_the_screen_changes(tmp_path: Path):
    with terminal(Project(tmp_path, "redis://127.0.0.1:1/0"), *TOP) as shown:
        _, complaints = shown.process.communicate(timeout=LIMIT_S)
        assert shown.process.returncode == 4
        assert b"cannot be reached" in complaints
        assert shown.written == ""


def test_one_picture_needs_no_terminal_and_has_no_colours(project: Project):
    with project.start_worker(*WORKER):
        done = project.run("top", "--once", COLUMNS="100", LINES="30")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100
    assert "INSTANCES" in done.stdout
    assert "\x1b" not in done.stdout


def test_interval_has_both_ends():
    assert (slower(2.0), faster(2.0)) == (5.0, 1.0)
    assert (slower(3.0), faster(3.0)) == (5.0, 2.0)
    assert (slower(60.0), faster(0.1)) == (60.0, 0.1)
