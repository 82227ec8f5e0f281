"""Child: a worker process as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .parent import PROBES_VARIABLE, SOCKET_VARIABLE

_LINE_BYTES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What others may know of a worker process.

    Attributes:
        slot: its place, from 0; its successor will have the same.
        pid: of the process.
        worker_id: its name in the fleet; "" before it is ready.
        probes_socket: where it serves its probes; may not exist yet, or not any more.
    """

    slot: int
    pid: int
    worker_id: str
    probes_socket: Path


class Child:
    """One process that was started here."""

    def __init__(self, process: Process, channel: socket.socket, info: WorkerInfo) -> None:
        """Look after a process that has been started."""
        self._process = process
        self._channel = channel
        self.info = info

    async def watch(self, on_ready: Callable[[], None], on_recycle: Callable[[str], None]) -> int:
        """Take what it says until it has ended; returns its exit code, -N for signal N."""
        reader, writer = await asyncio.open_unix_connection(sock=self._channel, limit=_LINE_BYTES)
        try:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(
                    self._listen(reader, on_ready, on_recycle), name=f"listen:{self.info.pid}"
                )
                code = await self._process.wait()
                # Not the socket's end: a process that it has forked may hold that open.
                hearing.cancel()
            return code
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                self.info.probes_socket.unlink(missing_ok=True)

    async def _listen(
        self,
        reader: asyncio.StreamReader,
        on_ready: Callable[[], None],
        on_recycle: Callable[[str], None],
    ) -> None:
        # Not even what an application writes by mistake may end the supervisor.
        with contextlib.suppress(OSError, ValueError, KeyError):
            async for line in reader:
                self._hear(line, on_ready, on_recycle)

    def _hear(
        self, line: bytes, on_ready: Callable[[], None], on_recycle: Callable[[str], None]
    ) -> None:
        said = cast("dict[str, str]", json.loads(line))
        if said["event"] == "ready":
            self.info = WorkerInfo(
                slot=self.info.slot,
                pid=self.info.pid,
                worker_id=said["worker"],
                probes_socket=self.info.probes_socket,
            )
            on_ready()
        else:
            on_recycle(said["reason"])

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class Launcher:
    """Starts worker processes: each is this very command again, told whose child it is."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], directory: Path) -> None:
        """Start a command.

        Args:
            command: program and arguments.
            environ: of the processes.
            directory: for the sockets of their probes.
        """
        self._command = command
        self._environ = environ
        self._directory = directory

    async def start(self, number: int, slot: int) -> Child:
        """Start a process.

        In a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone:
        heard twice it would mean "at once". It must not read from the terminal then.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            path = self._directory / f"{number}.sock"
            variables = {SOCKET_VARIABLE: str(theirs.fileno()), PROBES_VARIABLE: str(path)}
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env={**self._environ, **variables},
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        info = WorkerInfo(slot=slot, pid=process.pid, worker_id="", probes_socket=path)
        return Child(process, ours, info)


def this_command(executable: str, original: Sequence[str]) -> list[str]:
    """The command that this process was started with: ``sys.executable``, ``sys.orig_argv``.

    With the interpreter's own options, and the same import path.
    """
    return [executable or os.fspath(original[0]), *original[1:]]
