"""The embedded store: a private real server of one directory, shared by its processes.

The first process that opens a directory starts the server, under a small supervisor
(`embedded_server`); the last one to let go ends it, also by being killed. The server keeps an
append-only file in the directory, listens on a unix socket alone and never evicts.

Files of a directory: ``server.sock``, ``server.log`` (of the server and its supervisor),
``server.pid``, the server's data, and three lock files: ``users.lock`` (shared: a user;
exclusive: the supervisor, ending), ``supervisor.lock`` (one starts or lives) and
``server.lock`` (the server or its supervisor lives).

On Linux the server ends with its supervisor. Elsewhere a server whose supervisor was killed
runs on until the next process opens the directory, which shuts it down and starts another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from ..errors import StoreNotFound, StoreRefused, StoreUnavailable
from .embedded_files import (
    default_directory,
    find_binary,
    open_log,
    private_directory,
    socket_path,
)
from .embedded_locks import FileLock

__all__ = ["EmbeddedStore", "default_directory", "find_binary", "open_embedded"]

_POLL_S = 0.01
_ANSWER_S = 1.0
_LOG_LINES = 15
_SUPERVISOR = Path(__file__).with_name("embedded_server.py")


class EmbeddedStore:
    """One process's use of an embedded store; the server ends with the last use of all.

    Made by `open_embedded`. Any number may be open in one process; each counts by itself.
    Safe to use from several threads. A forked child is no user through its parent's handle:
    there it is closed from the start, and closing it does nothing to the parent's;
    `ensure_running` makes the child a user of its own.

    Attributes:
        directory: the store's directory, resolved.
        socket_path: where the server listens.
    """

    __slots__ = ("_binary", "_users", "directory", "socket_path")

    def __init__(self, directory: Path, binary: str | None) -> None:
        """Prepare and check the directory; nothing is started (see `open_embedded`)."""
        self.directory = private_directory(directory)
        self.socket_path = socket_path(self.directory)
        self._binary = binary
        self._users: FileLock | None = None

    @property
    def is_open(self) -> bool:
        """Whether this handle is a use of the store in this process."""
        return self._users is not None and self._users.is_open

    def ensure_running(self, timeout_s: float = 10.0) -> None:
        """Return when the server answers; start one if none runs; become a user if not yet one.

        Call it again when the connection was lost: a server whose supervisor was killed is
        not started by anybody else while its users live. Blocks; run it in a thread where
        there is an event loop.

        Args:
            timeout_s: longest silence, in seconds. A server that says that it is loading its
                data is not silent: large data may take longer than this.

        Raises:
            StoreNotFound: no server binary.
            StoreRefused: the socket or its directory belongs to another user.
            StoreUnavailable: no answer in time, or the server refused to run; with the end of
                its log. A handle that was a user before still is one.
        """
        until_s = time.monotonic() + timeout_s
        self._become_user(until_s)
        has_started = False
        while True:
            has_started |= self._start_if_none(until_s, may_start=not has_started)
            answer = self._ping()
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                until_s = time.monotonic() + timeout_s
            elif time.monotonic() >= until_s:
                raise self._unavailable(f"its server did not answer within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End this use; the server ends with the last one. Again, or after a fork: no effect."""
        if self._users is not None:
            self._users.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _become_user(self, until_s: float) -> None:
        if self.is_open:
            return
        users = FileLock(self.directory / "users.lock")
        try:
            # Waits while a supervisor whose users were gone ends its server.
            if not users.take(until_s, shared=True):
                raise self._unavailable("its former server has not ended yet; try again")
        except BaseException:
            users.close()
            raise
        if self.is_open:  # another thread was here first
            users.close()
        else:
            self._users = users

    def _start_if_none(self, until_s: float, *, may_start: bool) -> bool:
        """Start a supervisor if none lives; return whether this call did."""
        supervisor = FileLock(self.directory / "supervisor.lock")
        try:
            # Who gets it is the only one to start; from him it passes to the supervisor.
            if not supervisor.try_take():
                return False
            if not may_start:
                raise self._unavailable("its server ended again at once")
            self._start(supervisor, until_s)
            return True
        finally:
            supervisor.close()

    def _start(self, supervisor: FileLock, until_s: float) -> None:
        binary = find_binary(self._binary)
        _shut_down(self.socket_path)  # a server that lost its supervisor
        if self.socket_path.parent != self.directory:
            private_directory(self.socket_path.parent, may_be_link=False)
        server = FileLock(self.directory / "server.lock")
        try:
            if not server.take(until_s):
                raise self._unavailable("its former server still runs (see server.pid); end it")
            locks = (supervisor.fileno(), server.fileno())
            command = [
                *(sys.executable, "-I", "-S", str(_SUPERVISOR), "supervise"),
                *(str(self.directory / "users.lock"), ",".join(map(str, locks))),
                str(self.socket_path),
                *_server_command(binary, self.directory, self.socket_path),
            ]
            self._run(command, locks)
        except (OSError, subprocess.CalledProcessError) as error:
            raise self._unavailable(f"its supervisor did not start: {error}") from error
        finally:
            server.close()

    def _run(self, command: list[str], locks: tuple[int, int]) -> None:
        """Run what forks and returns at once; the locks stay with what it leaves running."""
        (self.directory / ".gitignore").write_text("*\n")  # it is made inside projects
        with open_log(self.directory / "server.log") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                pass_fds=locks,
                check=True,
            )

    def _ping(self) -> bytes:
        """Return the first line of the server's answer, or nothing."""
        with contextlib.suppress(FileNotFoundError):
            owner = self.socket_path.lstat().st_uid
            if owner != os.geteuid():
                raise StoreRefused(
                    f"socket {self.socket_path} belongs to user id {owner}, not to you; "
                    "name another directory: WHERRY_URL=embedded:///some/dir"
                )
            return _ask(self.socket_path, b"PING\r\n")
        return b""

    def _unavailable(self, reason: str) -> StoreUnavailable:
        path = self.directory / "server.log"
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        tail = f"\nlast lines of {path}:\n" + "\n".join(lines) if lines else ""
        return StoreUnavailable(f"embedded store {self.directory}: {reason}{tail}")


def open_embedded(
    directory: Path, *, binary: str | None = None, start_timeout_s: float = 10.0
) -> EmbeddedStore:
    """Open the embedded store of a directory; its server runs and answers on return.

    Blocks; run it in a thread where there is an event loop.

    Args:
        directory: made with mode 0700 if it is not there.
        binary: see `find_binary`; needed only if no server runs yet.
        start_timeout_s: see `EmbeddedStore.ensure_running`.

    Raises:
        StoreNotFound: no server binary, or no such servers on this platform.
        StoreRefused: the directory belongs to another user, is open to others or cannot be
            made.
        StoreUnavailable: the server did not start; with the end of its log.
    """
    if os.name != "posix":
        raise StoreNotFound(
            "the embedded store needs Linux or macOS; set WHERRY_URL to a Redis "
            "(redis://host:6379) or to memory:// for a single process"
        )
    store = EmbeddedStore(directory, binary)
    try:
        store.ensure_running(start_timeout_s)
    except BaseException:
        store.close()
        raise
    return store


def _server_command(binary: Path, directory: Path, socket_path: Path) -> list[str]:
    """Return the command of a private server: on disk, no TCP port, nothing ever evicted."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "600",
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
        "pidfile": str(directory / "server.pid"),
    }
    return [str(binary), *(part for key, text in options.items() for part in (f"--{key}", text))]


def _ask(path: Path, command: bytes) -> bytes:
    """Send one command; return the first line of the answer, empty if there is none in time."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str(path))
            connection.sendall(command)
            return connection.recv(4096)
        except OSError:
            return b""


def _shut_down(path: Path) -> None:
    """Ask the server that listens there, if one does, to end."""
    _ask(path, b"SHUTDOWN NOSAVE\r\n")
