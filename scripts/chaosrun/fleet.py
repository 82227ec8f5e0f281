"""The workers of a fault run: real ``wherry run`` processes, each behind a route of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 60.0
PROBED = '"event": "a message that may have killed a process is run alone"'
UNREACHABLE = 4
"""Exit code of a worker that cannot reach Redis at its start (docs/configuration.md)."""


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One ``wherry run``.

    Attributes:
        name: of its route and its log.
        process: the process.
        is_struck: a fault is being done to it.
    """

    name: str
    process: asyncio.subprocess.Process
    is_struck: bool = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid


class Fleet:
    """Workers that come and go.

    Attributes:
        workers: those that should run.
        port: of the server that routes lead to.
        exits: exit code -> how often a worker that was drained ended with it.
        ended: exit codes of workers that ended unasked, which none should.
        not_started: how many found no Redis at their start; a supervisor tries again.
    """

    def __init__(
        self, proxy: Proxy, port: int, directory: Path, settings: list[str], url: str = ""
    ) -> None:
        """Let workers go to a port through the proxy, or by themselves to a URL."""
        self.workers: list[WorkerProcess] = []
        self.port = port
        self.exits: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.not_started = 0
        self._proxy = proxy
        self._directory = directory
        self._settings = settings
        self._url = url
        self._started = 0
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> WorkerProcess:
        """Start one more worker."""
        self._started += 1
        name = f"worker-{self._started}"
        port = await self._proxy.open(name, self.port)
        command = [sys.executable, "-m", "wherry", "run"]
        command += ["scripts.chaosrun.application:application", "--app-dir", str(ROOT)]
        command += ["--url", self._url or f"redis://127.0.0.1:{port}/0", "--durable-state"]
        for setting in self._settings:
            command += ["--set", setting]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WHERRY_")
        }
        with (self._directory / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self._processes.append(process)
        worker = WorkerProcess(name, process)
        self.workers.append(worker)
        return worker

    def signal(self, worker: WorkerProcess, number: signal.Signals) -> None:
        """Send a signal that ends a worker; it is not counted among those that should run."""
        if worker in self.workers:
            self.workers.remove(worker)
        if worker.process.returncode is None:
            worker.process.send_signal(number)

    async def wait_end(self, worker: WorkerProcess) -> None:
        """Wait until a worker that was signalled has ended."""
        code = await worker.process.wait()
        if code != -signal.SIGKILL:
            self.exits[code] += 1
        await self._proxy.close(worker.name)

    async def replace_ended(self) -> None:
        """Replace workers that ended by themselves, as a supervisor does."""
        ended = [one for one in self.workers if one.process.returncode is not None]
        for worker in ended:  # before the first await: other tasks replace what has ended, too
            self.workers.remove(worker)
        for worker in ended:
            code = worker.process.returncode or 0
            if code == UNREACHABLE and not self._was_ready(worker):
                self.not_started += 1
            else:
                self.ended[code] += 1
            await self._proxy.close(worker.name)
            await self.start()

    def probes(self) -> Counter[tuple[str, str]]:
        """Scope and id of an entry -> how often some worker ran it alone."""
        found: Counter[tuple[str, str]] = Counter()
        for log in self._directory.glob("worker-*.log"):
            for line in log.read_text(encoding="utf-8").splitlines():
                if PROBED in line:
                    said = json.loads(line)
                    found[said["scope"], said["entry"]] += 1
        return found

    def _was_ready(self, worker: WorkerProcess) -> bool:
        log = (self._directory / f"{worker.name}.log").read_text(encoding="utf-8")
        return '"event": "ready"' in log

    async def stop(self) -> None:
        """Drain all workers, at the same time."""
        workers = list(self.workers)
        for worker in workers:
            self.signal(worker, signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            for worker in workers:
                await self.wait_end(worker)

    async def kill(self) -> None:
        """Kill what is left."""
        left = [process for process in self._processes if process.returncode is None]
        for process in left:
            process.kill()
        for process in left:
            await process.wait()
