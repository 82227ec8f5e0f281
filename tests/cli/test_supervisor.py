"""``wherry run --workers N``: processes that are killed, replaced, stopped and left alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.cli.commands import ECHO, LIMIT_S, Project, Running, command
from tests.servers import wait_until
from wherry.supervisor.parent import PROBES_VARIABLE

HELLO = '{"type": "say", "text": "hello"}'
QUICK = ("--partitions", "4", "--set", "beat_s=0.1")

END = """
def end(*_, write=os.write, open=os.open, close=os.close, flags=os.O_RDONLY):
    write(2, b"ending\\n")
    close(open("gate", flags))  # returns when somebody writes to it
"""


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


@contextlib.contextmanager
def supervised(project: Project, *arguments: str, workers: int = 2) -> Iterator[Running]:
    """A supervisor whose workers are ready; all of them are gone at the end."""
    running = project.start("run", "echo:app", "--workers", str(workers), *QUICK, *arguments)
    with running:
        try:
            running.wait_for("all workers are ready")
            yield running
        finally:
            running.kill()
            wait_until(lambda: not alive(running), "its workers are gone", LIMIT_S)


def said(running: Running, event: str) -> list[dict[str, object]]:
    """What was logged, in order; other lines are for people."""
    lines = [line for line in running.stderr.splitlines() if line.startswith("{")]
    return [one for one in map(json.loads, lines) if one["event"] == event]


def pids(running: Running) -> list[int]:
    """Processes of all workers that have been ready."""
    return [int(str(one["worker"]).rsplit("-", 2)[1]) for one in said(running, "ready")]


def alive(running: Running) -> list[int]:
    return [pid for pid in pids(running) if psutil.pid_exists(pid)]


def members(project: Project) -> int:
    return len(json.loads(project.run("status", "--json").stdout)["members"])


def in_flight(project: Project) -> int:
    return json.loads(project.run("status", "--json").stdout)["in_flight"]


def test_each_worker_is_a_member_and_ends_with_the_supervisor(project: Project):
    with supervised(project) as running:
        assert members(project) == 2
        directory = Path(psutil.Process(pids(running)[0]).environ()[PROBES_VARIABLE]).parent
        assert directory.stat().st_mode & 0o777 == 0o700
        assert running.stop(signal.SIGTERM) == 0
        assert not alive(running)
        assert not directory.exists()
        assert len(said(running, "worker stopped")) == 2


def test_command_of_the_documentation(project: Project):
    text = (Path(__file__).parents[2] / "docs" / "running.md").read_text("utf-8")
    [line] = re.findall(r"^wherry run .*$", text, re.MULTILINE)
    (project.directory / "shop").mkdir()
    project.write("shop/worker.py", ECHO.replace("def app(", "def application("))
    with project.start(*shlex.split(line)[1:], *QUICK) as running:
        running.wait_for("all workers are ready")
        assert len(pids(running)) == 4
        assert running.stop(signal.SIGTERM) == 0


def test_killed_worker_is_replaced(project: Project):
    with supervised(project) as running:
        os.kill(pids(running)[0], signal.SIGKILL)
        wait_until(lambda: len(pids(running)) == 3, "another is ready", LIMIT_S)
        [told] = said(running, "a worker ended; another is started")
        assert (told["pid"], told["signal"]) == (pids(running)[0], "SIGKILL")
        assert running.stop(signal.SIGTERM) == 0


def test_worker_that_was_told_to_drain_by_itself_is_replaced(project: Project):
    with supervised(project) as running:
        os.kill(pids(running)[1], signal.SIGTERM)
        wait_until(lambda: len(pids(running)) == 3, "another is ready", LIMIT_S)
        assert running.stop(signal.SIGTERM) == 0


def test_workers_of_a_killed_supervisor_drain_and_end(project: Project):
    with supervised(project) as running:
        directory = Path(psutil.Process(pids(running)[0]).environ()[PROBES_VARIABLE]).parent
        running.kill()
        wait_until(lambda: not alive(running), "its workers have ended", LIMIT_S)
        assert len(said(running, "the supervisor is gone; this worker drains and ends")) == 2
        assert len(said(running, "worker stopped")) == 2
        assert not directory.exists()
        assert json.loads(project.run("status", "--json").stdout)["members"] == []


def test_worker_whose_loop_does_not_turn_does_not_outlive_its_supervisor(project: Project):
    project.write(
        "echo.py",
        "import sys, time\nasync def app(scope, receive, send):\n    await receive()\n"
        "    print('spinning', file=sys.stderr, flush=True)\n    while True: time.sleep(0.01)\n",
    )
    quick = ("--set", "drain_timeout_s=0.1", "--lifespan", "off")
    with supervised(project, *quick, workers=2) as running:
        project.run("send", "a", HELLO)
        running.wait_for("spinning")
        running.kill()
        wait_until(lambda: not alive(running), "its workers have ended", LIMIT_S)


def test_worker_that_ends_at_its_start_is_tried_five_times(project: Project):
    project.write("echo.py", "raise RuntimeError('no database')\n")
    done = project.run("run", "echo:app", "--workers", "2")
    assert done.returncode == 3
    # Where a start takes longer than the head start of the first, the second tries, too.
    assert 5 <= done.stderr.count('"event": "a worker ended at its start"') <= 2 * 5
    assert done.stderr.count("wherry: no worker can be started: it ended at its start 5 times") == 1
    assert "no database" in done.stderr
    assert "Traceback" not in done.stderr


def test_mistake_is_told_once(project: Project):
    done = project.run("run", "ecko:app", "--workers", "3")
    assert done.returncode == 2
    assert done.stderr.count("there is no module 'ecko'") == 1
    assert "with exit code 2, which trying again does not mend" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--workers", "0"), "--workers=0: workers must lie between 1 and 1024"),
        (("--max-memory", "lots"), "--max-memory='lots': max_memory must be a size such as 512M"),
        (("--max-messages", "-1"), "--max-messages=-1: max_messages must be 0 (off) or more"),
        (("--workers", "2", "--url", "memory://"), "a memory:// store lives inside one process"),
        (("--workers", "2", "--url", "reddis://h"), "did you mean redis://?"),
    ],
)
def test_what_no_worker_could_use_is_refused(project: Project, arguments: Sequence[str], text: str):
    done = project.run("run", "echo:app", *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_hang_up_replaces_all_workers(project: Project):
    with supervised(project) as running:
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("all workers are replaced")
        assert alive(running) == pids(running)[2:4]
        assert project.lines("request", "a", HELLO)
        assert running.stop(signal.SIGTERM) == 0


def test_restart_that_does_not_start_leaves_the_old_workers(project: Project):
    with supervised(project) as running:
        project.write("echo.py", "app = 3\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("the restart is given up")
        assert alive(running) == pids(running)
        assert project.lines("request", "a", HELLO)
        assert running.stop(signal.SIGTERM) == 0


def test_second_signal_hands_back_at_once(project: Project):
    with supervised(project) as running:
        project.run("send", "a", '{"type": "slow"}')
        wait_until(lambda: in_flight(project) == 1, "is in flight", LIMIT_S)
        assert running.stop(signal.SIGTERM, signal.SIGINT) == 6
        assert json.loads(project.run("status", "--json").stdout)["backlog"] == 1


@pytest.mark.parametrize(
    "last",
    [
        "import atexit\natexit.register(end)\n",
        "import sys\nsys.last = type('Last', (), {'__del__': end})()\n",
    ],
    ids=["before Python ends", "while Python ends"],
)
def test_signal_after_the_drain_does_not_change_the_exit_code(project: Project, last: str):
    gate = project.directory / "gate"
    os.mkfifo(gate)
    project.write(
        "slow_end.py",
        f"from echo import app\nimport os\n{END}\n{last}",
    )
    with project.start_worker("slow_end:app") as running:
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("ending")
        running.process.send_signal(signal.SIGTERM)
        gate.write_text("")
        assert running.process.wait(LIMIT_S) == 0


def test_user_signal_prints_what_all_workers_are_at(project: Project):
    with supervised(project) as running:
        project.run("send", "a", '{"type": "slow"}')
        wait_until(lambda: in_flight(project) == 1, "is in flight", LIMIT_S)
        running.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: running.stderr.count("task committer") == 2, "both have told", LIMIT_S)
        assert ": 2 processes" in running.stderr
        assert "1 instances, 1 busy" in running.stderr
        assert "scope 'a'  busy  0 waiting  entry " in running.stderr
        assert f"{project.directory / 'echo.py'}:10 in app" in running.stderr


def test_user_signal_shows_what_keeps_the_loop_of_a_single_worker_busy(project: Project):
    project.write(
        "echo.py",
        "import sys\nasync def app(scope, receive, send):\n    await receive()\n"
        "    print('spinning', file=sys.stderr, flush=True)\n    while True: pass\n",
    )
    with project.start_worker("echo:app", "--lifespan", "off") as running:
        project.run("send", "a", HELLO)
        running.wait_for("spinning")
        running.process.send_signal(signal.SIGUSR1)
        running.wait_for(f"the loop is at instance:a: {project.directory / 'echo.py'}:5 in app")


def test_hang_up_lets_a_single_worker_drain(project: Project):
    with project.start_worker("echo:app") as running:
        assert running.stop(signal.SIGHUP) == 0
        assert "whoever supervises this worker may start another" in running.stderr


def test_single_worker_that_has_done_enough_drains_and_says_why(project: Project):
    with project.start_worker("echo:app", "--max-messages", "3") as running:
        for _ in range(4):
            project.run("send", "a", HELLO)
        assert running.process.wait(LIMIT_S) == 0
        [told] = said(running, "a limit is reached: this worker drains and ends")
        assert "messages (max_messages)" in str(told["reason"])


def test_worker_that_occupies_too_much_is_replaced_before_it_goes(project: Project):
    with supervised(project, "--max-memory", "1M") as running:
        wait_until(lambda: len(pids(running)) >= 3, "one was replaced", LIMIT_S)
        assert len(said(running, "a limit is so low that workers reach it soon")) >= 1
        assert project.lines("request", "a", HELLO)
        assert "MiB (max_memory)" in str(said(running, "a worker is replaced")[0]["reason"])
        assert running.stop(signal.SIGTERM) == 0


def test_changed_code_is_loaded_and_broken_code_is_not(project: Project):
    pytest.importorskip("watchfiles", reason="pip install 'wherry[reload]'")
    with supervised(project, "--reload", workers=1) as running:
        project.write("echo.py", "app = 3\n")
        running.wait_for("the restart is given up")
        assert project.lines("request", "a", HELLO)[0]["type"] == "echo"
        project.write("echo.py", ECHO.replace('"echo"', '"echo2"'))
        running.wait_for("all workers are replaced")
        assert project.lines("request", "a", HELLO)[0]["type"] == "echo2"
        assert running.stop(signal.SIGTERM) == 0


def test_code_that_does_not_start_is_tried_again_when_it_has_changed(project: Project):
    pytest.importorskip("watchfiles", reason="pip install 'wherry[reload]'")
    project.write("echo.py", "app = 3\n")
    with project.start("run", "echo:app", "--reload") as running:
        running.wait_for("waiting for a change of the code")
        project.write("echo.py", ECHO)
        wait_until(lambda: len(pids(running)) == 1, "it is ready", LIMIT_S)
        assert running.stop(signal.SIGTERM) == 0


class Terminal:
    """A supervisor whose terminal a person may close, or press Ctrl-C in."""

    def __init__(self, project: Project) -> None:
        self._ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            command("run", "echo:app", "--workers", "2", *QUICK),
            cwd=project.directory,
            env=project.environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - nothing else makes it its own
        )
        os.close(theirs)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        while text not in self.shown:
            self.shown += os.read(self._ours, 4096).decode()

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def close(self) -> None:
        os.close(self._ours)


def test_interrupt_from_the_keyboard_is_heard_once(project: Project):
    """Ctrl-C goes to all processes of a terminal: a worker that heard it twice would cut off."""
    terminal = Terminal(project)
    try:
        terminal.wait_for("all workers are ready")
        assert terminal.shown.count("wherry 0") == 1  # one banner
        terminal.press(b"\x03")
        terminal.wait_for("worker stopped")
        terminal.wait_for("worker stopped")
        assert terminal.process.wait(LIMIT_S) == 0
        assert terminal.shown.count("signal=SIGINT") == 1
        assert "hands back; a third kills" not in terminal.shown
    finally:
        terminal.process.kill()
        terminal.process.wait()
        terminal.close()


def test_closed_terminal_lets_all_drain(project: Project):
    terminal = Terminal(project)
    try:
        terminal.wait_for("all workers are ready")
        terminal.close()
        assert terminal.process.wait(LIMIT_S) == 0
        assert members(project) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
