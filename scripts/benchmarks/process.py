"""The worker under test: the shipped ``wherry run`` as a process, measured from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""Grain of `cpu_s`."""
_READY = b'"event": "ready"'


class WorkerProcess:
    """One running worker.

    Attributes:
        pid: its process id.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._lines: deque[bytes] = deque(maxlen=50)
        self._is_ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if _READY in line:
                self._is_ready.set()
        self._is_ready.set()  # it has ended: whoever waits shall see that

    def wait_ready(self) -> None:
        """Return when it says that it is ready; raises RuntimeError if it does not."""
        if not self._is_ready.wait(READY_S) or self._process.poll() is not None:
            raise RuntimeError(f"the worker is not ready; it said:\n{self.said()}")

    def check(self) -> None:
        """Raise RuntimeError if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the worker has ended; it said:\n{self.said()}")

    def stop(self) -> float:
        """Let it end as SIGTERM does; returns the seconds that it took."""
        # A wait with a timeout looks ever more seldom: it would see the end up to 50 ms late.
        watchdog = threading.Timer(READY_S, self._process.kill)
        watchdog.start()
        started_s = time.monotonic()
        self._process.terminate()
        code = self._process.wait()
        spent_s = time.monotonic() - started_s
        watchdog.cancel()
        if code != 0:
            raise RuntimeError(f"the worker did not end well; it said:\n{self.said()}")
        return spent_s

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """The end of its log."""
        return b"".join(self._lines).decode(errors="replace")

    def cpu_s(self) -> float:
        """User and system time so far, all threads, in seconds."""
        return cpu_s(self.pid)

    def resident_bytes(self) -> int:
        """Memory that it occupies now."""
        return resident_bytes(self.pid)


@contextlib.contextmanager
def running_worker(
    url: str, directory: Path, *flags: str, application: str = "echo"
) -> Iterator[WorkerProcess]:
    """Run a ready ``wherry run`` of an application of ours until the end of the block.

    Neither the environment nor a pyproject.toml sets anything: it has the default Config and
    what ``flags`` say.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("WHERRY_")
    }
    command = [sys.executable, "-m", "wherry", "run"]
    command += [f"scripts.benchmarks.applications:{application}"]
    command += ["--app-dir", str(ROOT), "--url", url, *flags]
    with subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            worker = WorkerProcess(process)
            worker.wait_ready()
            yield worker
        finally:
            process.terminate()
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()


def cpu_s(pid: int) -> float:
    """User and system time of a process, in seconds."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        # The name in parentheses may hold blanks; utime and stime are fields 14 and 15.
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S
    seconds = 0.0
    for part in _ask_ps(pid, "time").replace("-", ":").split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    statm = Path(f"/proc/{pid}/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return int(_ask_ps(pid, "rss")) * 1024


def _ask_ps(pid: int, field: str) -> str:
    command = ["ps", "-o", f"{field}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
