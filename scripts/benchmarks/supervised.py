"""The supervisor under test: the shipped ``wherry run --workers N``, heard from its log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from .process import ROOT

LIMIT_S = 240.0
_LOOK_S = 0.005


class Supervised:
    """One running supervisor with its workers."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name, each with ``at_s``, Unix seconds."""
        lines = [json.loads(one) for one in self._log.read_text().splitlines() if one[:1] == "{"]
        return [
            {**one, "at_s": datetime.fromisoformat(one["time"]).timestamp()}
            for one in lines
            if one["event"] == name
        ]

    def workers(self) -> list[int]:
        """Process ids of the workers that have been ready, in that order."""
        return [int(one["worker"].rsplit("-", 2)[1]) for one in self.events("ready")]

    def wait_for(self, name: str, count: int = 1) -> None:
        """Return when something was logged so often."""
        self.wait_until(lambda: len(self.events(name)) >= count, name)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when a condition holds; raises RuntimeError if it never will."""
        until_s = time.monotonic() + LIMIT_S
        while not condition():
            if self._process.poll() is not None or time.monotonic() > until_s:
                tail = "\n".join(self._log.read_text().splitlines()[-30:])
                raise RuntimeError(f"not so within {LIMIT_S:g} s: {what}; it said:\n{tail}")
            time.sleep(_LOOK_S)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Let all drain; raises RuntimeError if the exit code is not 0."""
        self._process.terminate()
        if (code := self._process.wait(LIMIT_S)) != 0:
            raise RuntimeError(f"the supervisor ended with exit code {code}")


@contextlib.contextmanager
def running_supervisor(
    url: str, directory: Path, application: str, workers: int, *flags: str
) -> Iterator[Supervised]:
    """Run workers of an application of ours until the end of the block; all are ready."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("WHERRY_")
    }
    command = [sys.executable, "-m", "wherry", "run"]
    command += [f"scripts.benchmarks.applications:{application}", "--app-dir", str(ROOT)]
    command += ["--url", url, "--workers", str(workers), *flags]
    log = directory / f"supervisor-{application}-{time.monotonic_ns()}.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        ) as process,
    ):
        try:
            running = Supervised(process, log)
            running.wait_for("all workers are ready")
            yield running
        finally:
            process.terminate()
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
