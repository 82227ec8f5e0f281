"""A real server of the benchmark's own: started on a free loopback port, stopped by its pid."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis

from wherry.broker.embedded_files import find_binary

from ..ports import free_port

START_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchServer:
    """A running server.

    Attributes:
        url: for workers.
        client: for the benchmark itself.
        name: what it says of itself, for the report.
        pid: its process id.
    """

    url: str
    client: redis.Redis
    name: str
    pid: int

    @property
    def nodes(self) -> Sequence[BenchServer]:
        """All servers: itself."""
        return (self,)

    def cpu_s(self) -> float:
        """User and system time of the server process so far, in seconds."""
        info = cast("dict[str, Any]", self.client.info("cpu"))
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def now_s(self) -> float:
        """Unix time by the server's clock, in seconds."""
        seconds, micros = cast("tuple[int, int]", self.client.time())
        return seconds + micros / 1e6


@contextlib.contextmanager
def running_server(
    directory: Path, binary: str | None, options: Sequence[str] = (), port: int = 0
) -> Iterator[BenchServer]:
    """Run a server without persistence until the end of the block.

    Args:
        directory: where it writes its log.
        options: more for its command line.
        port: where it listens; 0: where there is room.
        binary: path or name of the program; None takes redis-server or valkey-server from PATH,
            else the one of the extra ``server``.
    """
    program = find_binary(binary)
    port = port or free_port()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "no", "--dir", str(directory), *options]
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, protocol=2, socket_timeout=30.0) as client:
            _wait_for(client, process, directory / "server.log")
            info = cast("dict[str, Any]", client.info("server"))
            name = f"{info.get('server_name', 'redis')} "
            name += str(info.get("valkey_version") or info["redis_version"])
            url = f"redis://127.0.0.1:{port}/0"
            yield BenchServer(url=url, client=client, name=name, pid=process.pid)
    finally:
        process.terminate()
        process.wait(START_S)


def _wait_for(client: redis.Redis, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > until_s:
                print(log.read_text(errors="replace"), file=sys.stderr)
                raise
            time.sleep(0.01)
