"""Processes of a test: started, waited for, killed, and gone when the test ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINE_BYTES = 2**20
SHORT_LEASE = {"WHERRY_LEASE_S": "1", "WHERRY_BEAT_S": "0.3"}
"""A dead worker's partitions are taken over within about a second."""


class Running:
    """One process whose output is read as it comes.

    Attributes:
        process: the process.
        lines: the end of its output.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: deque[str] = deque(maxlen=200)
        self._said = asyncio.Condition()
        self._has_ended = False

    async def read(self) -> None:
        """Read until the process ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._said:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._said.notify_all()
        await self.process.wait()
        async with self._said:
            self._has_ended = True
            self._said.notify_all()

    async def until_it_says(self, text: str, within_s: float = 20.0) -> str:
        """Return the first line with a text; fails if the process ends without saying it."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        async with asyncio.timeout(within_s), self._said:
            await self._said.wait_for(lambda: found() is not None or self._has_ended)
            line = found()
        assert line is not None, f"ended without {text!r}:\n" + "\n".join(self.lines)
        return line

    async def worker_id(self) -> str:
        """Return the id of a worker once it is ready."""
        return json.loads(await self.until_it_says('"event": "ready"'))["worker"]

    def send_signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, within_s: float = 30.0) -> int:
        """Send a signal, wait, return the exit code."""
        self.send_signal(number)
        async with asyncio.timeout(within_s):
            return await self.process.wait()


class Processes:
    """Starts the processes of one test; see `processes`."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.started: list[Running] = []

    async def python(self, *arguments: str, env: Mapping[str, str] | None = None) -> Running:
        """Start Python with these arguments in the repository's root."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            limit=LINE_BYTES,
        )
        running = Running(process)
        self.started.append(running)
        self._tasks.create_task(running.read(), name=f"read:{process.pid}")
        return running

    async def worker(
        self, application: str, url: str, *flags: str, env: Mapping[str, str] | None = None
    ) -> Running:
        """Start ``wherry run`` with a short lease."""
        arguments = ("-m", "wherry", "run", application, "--url", url, *flags)
        return await self.python(*arguments, env=SHORT_LEASE | dict(env or {}))


@contextlib.asynccontextmanager
async def processes() -> AsyncGenerator[Processes]:
    """Processes that are killed at the end of the block."""
    async with asyncio.TaskGroup() as tasks:
        found = Processes(tasks)
        try:
            yield found
        finally:
            for one in found.started:
                one.send_signal(signal.SIGKILL)
                await one.process.wait()
