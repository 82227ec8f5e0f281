"""The processes of a fault run: one server that can be killed, and workers that are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from wherry.broker.embedded_files import find_binary

ROOT = Path(__file__).resolve().parents[2]
START_S = 20.0


class Server:
    """A real server with an append-only file that is synced at every write.

    Attributes:
        url: for workers and clients.
    """

    def __init__(self, directory: Path, binary: str | None) -> None:
        self._program = str(find_binary(binary))
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self._program, "--port", str(self._port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self._directory), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until_s = time.monotonic() + START_S
        with redis.Redis(port=self._port, protocol=2) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if time.monotonic() > until_s or self._process.poll() is not None:
                        raise
                    time.sleep(0.02)

    def kill(self) -> None:
        """Kill it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One ``wherry run``.

    Attributes:
        process: the process.
        is_struck: a fault is being done to it.
    """

    process: asyncio.subprocess.Process
    is_struck: bool = False


class Fleet:
    """A number of workers that is kept.

    Attributes:
        exits: exit code -> how often a worker ended with it, killed ones left out.
    """

    def __init__(self, url: str, directory: Path, settings: list[str]) -> None:
        self.exits: dict[int, int] = {}
        self.workers: list[WorkerProcess] = []
        self._url = url
        self._directory = directory
        self._settings = settings
        self._started = 0

    async def start(self) -> WorkerProcess:
        """Start one more worker."""
        command = [
            sys.executable,
            "-m",
            "wherry",
            "run",
            "scripts.chaosrun.application:application",
        ]
        command += ["--app-dir", str(ROOT), "--url", self._url, "--durable-state"]
        for setting in self._settings:
            command += ["--set", setting]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WHERRY_")
        }
        self._started += 1
        with (self._directory / f"worker-{self._started}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        worker = WorkerProcess(process)
        self.workers.append(worker)
        return worker

    async def end(self, worker: WorkerProcess, number: signal.Signals, *, replace: bool) -> None:
        """Send a signal that ends a worker, wait for it, and replace it."""
        self.workers.remove(worker)
        if worker.process.returncode is None:
            worker.process.send_signal(number)
        code = await worker.process.wait()
        if number != signal.SIGKILL:
            self.exits[code] = self.exits.get(code, 0) + 1
        if replace:
            await self.start()

    async def replace_ended(self) -> int:
        """Replace workers that ended by themselves; returns how many there were."""
        ended = [one for one in self.workers if one.process.returncode is not None]
        for worker in ended:
            await self.end(worker, signal.SIGTERM, replace=True)
        return len(ended)

    async def stop(self) -> None:
        """Drain all workers, at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for worker in list(self.workers):
                tasks.create_task(self.end(worker, signal.SIGTERM, replace=False))

    def kill(self) -> None:
        """Kill what is left."""
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.process.kill()
