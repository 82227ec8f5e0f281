"""Servers of a fault run: they can be killed, and followed by a replica that takes over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import redis

from ..ports import free_port

START_S = 30.0
SYNC_S = 60.0
OPTIONS = (
    *("--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
    *("--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"),
)


class Server:
    """A real server with an append-only file that is synced at every write.

    Attributes:
        port: where it listens.
        url: for whoever connects without a proxy.
    """

    password = None

    def __init__(
        self, directory: Path, program: str, port: int | None = None, options: Sequence[str] = ()
    ) -> None:
        self._program = program
        self._directory = directory
        self._options = options
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [self._program, "--port", str(self.port), "--dir", str(self._directory)]
        command += [*OPTIONS, *self._options]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait(lambda: bool(self.call("PING")), START_S)

    @property
    def is_live(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill it without warning, and its child that may be at work on its files."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def forget(self) -> None:
        """Drop its data; it is dead."""
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)

    def follow(self, port: int) -> None:
        """Become a replica of the server behind a port, and wait until it has everything."""
        self.call("REPLICAOF", "127.0.0.1", port)
        self._wait(lambda: self.replication()["master_link_status"] == "up", SYNC_S)

    def promote(self) -> None:
        """Become a primary."""
        self.call("REPLICAOF", "NO", "ONE")

    def call(self, *command: str | int) -> object:
        """Carry out a command."""
        with redis.Redis(port=self.port, protocol=2) as client:
            return client.execute_command(*command)

    def offset(self) -> int:
        """How far its history goes, as it or a replica of it counts."""
        said = self.replication()
        return int(said["slave_repl_offset" if said["role"] == "slave" else "master_repl_offset"])

    def replication(self) -> dict[str, str]:
        """What it says of its replication."""
        with redis.Redis(port=self.port, protocol=2) as client:
            info = cast("dict[str, object]", client.info("replication"))
        return {name: str(value) for name, value in info.items()}

    def _wait(self, is_true: Callable[[], bool], within_s: float) -> None:
        until_s = time.monotonic() + within_s
        while True:
            try:
                if is_true():
                    return
            except (redis.ConnectionError, redis.TimeoutError):
                if self._process is None or self._process.poll() is not None:
                    raise
            if time.monotonic() > until_s:
                raise TimeoutError(f"the server on port {self.port} is not ready")
            time.sleep(0.02)


def catch_up(primary: Server, replica: Server) -> None:
    """Wait until a replica has what its primary has now."""
    wanted, until_s = primary.offset(), time.monotonic() + SYNC_S
    while replica.offset() < wanted:
        if time.monotonic() > until_s:
            raise TimeoutError(f"the replica on port {replica.port} stays behind")
        time.sleep(0.005)
