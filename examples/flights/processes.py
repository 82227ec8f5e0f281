"""Worker processes: started, watched, and ended with whoever started them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

APPLICATION = "examples.flights.app:application"
ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
"""Longest wait for all workers to be ready."""
STOP_S = 35.0
"""Longest wait for a worker after SIGTERM; above its drain deadline of 25 s."""
_LINES_KEPT = 20
_LINE_BYTES = 2**20


class ProcessFailed(Exception):
    """A worker did not start or ended by itself; the text says how, with its last lines."""


class WorkerProcess:
    """One ``wherry run`` process.

    Attributes:
        process: the process.
        ready: set when the worker says that it is.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._is_stopping = False

    async def watch(self) -> None:
        """Read what it says until it ends.

        Raises:
            ProcessFailed: nobody had told it to end.
        """
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self._lines.append(line.decode(errors="replace").rstrip())
            if b'"event": "ready"' in line:
                self.ready.set()
        code = await self.process.wait()
        if not self._is_stopping:
            said = "\n".join(self._lines)
            raise ProcessFailed(f"worker {self.process.pid} ended with exit code {code}:\n{said}")

    def terminate(self) -> None:
        """Tell it to drain and end."""
        self._is_stopping = True
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()

    async def reap(self) -> None:
        """Kill it if it still runs."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def worker_processes(
    url: str, namespace: str, count: int
) -> AsyncGenerator[Sequence[WorkerProcess]]:
    """Run workers of the flights application; they drain and end when the block is left.

    Args:
        url: of the store.
        namespace: that they serve.
        count: how many processes.

    Raises:
        ExceptionGroup: of `ProcessFailed`, when one did not become ready or ended by itself;
            the block is cancelled.
    """
    workers: list[WorkerProcess] = []
    try:
        for _ in range(count):
            workers.append(WorkerProcess(await _start(url, namespace)))
        async with asyncio.TaskGroup() as tasks:
            for worker in workers:
                tasks.create_task(worker.watch(), name=f"watch:{worker.process.pid}")
            try:
                await _all_ready(workers)
                yield workers
            finally:
                for worker in workers:
                    worker.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        for worker in workers:
                            await worker.process.wait()
    finally:
        for worker in workers:
            await worker.reap()


async def _start(url: str, namespace: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wherry", "run", APPLICATION, "--durable-state"),
        *("--url", url, "--namespace", namespace, "--log-level", "info"),
        cwd=ROOT,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        limit=_LINE_BYTES,
    )


async def _all_ready(workers: Sequence[WorkerProcess]) -> None:
    try:
        async with asyncio.timeout(START_S):
            for worker in workers:
                await worker.ready.wait()
    except TimeoutError:
        raise ProcessFailed(f"the workers were not ready within {START_S:g} s") from None
