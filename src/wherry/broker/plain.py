"""Plain: one short-lived blocking connection, without redis-py.

For what must be quick to start, as a health probe is: to import redis-py takes longer than to ask
Redis. Everything else uses `wherry.broker.connect`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self, cast
from urllib.parse import unquote

from ..errors import StoreError, StoreRefused, StoreUnavailable
from .login import log_in
from .urls import Address, Kind

KINDS = frozenset({Kind.REDIS, Kind.UNIX, Kind.EMBEDDED})
"""Those of the stores that it reaches."""

Words = Sequence[str | bytes | int]


class PlainConnection:
    """One connection to a server; answers are bytes, int, None and lists of these.

    Every call raises `StoreUnavailable` when no answer came in time.
    """

    __slots__ = ("_answers", "_socket", "_until_s", "_where")

    def __init__(self, address: Address, *, within_s: float) -> None:
        """Connect and log in; all that is asked must be answered within so many seconds.

        Args:
            address: of one of `KINDS`.
            within_s: counted from now.

        Raises:
            StoreUnavailable: nobody answers there.
            StoreRefused: the login is wrong, or none is given where one is wanted.
        """
        self._where = address.shown
        self._until_s = time.monotonic() + within_s
        self._socket = self._connect(address)
        self._answers = cast("BinaryIO", self._socket.makefile("rb"))
        user, password = (address.login.get(name, "") for name in ("username", "password"))
        try:
            for answer in self.calls(log_in(user, password, address.login.get("db", 0))):
                if isinstance(answer, Exception):
                    raise answer
        except BaseException:
            self.close()
            raise

    def calls(self, commands: Sequence[Words]) -> list[Any]:
        """Send commands in one write; an error answer stands in the list as a `WherryError`."""
        try:
            self._patient()
            self._socket.sendall(b"".join(_encode(words) for words in commands))
            return [self._read() for _ in commands]
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connect(self, address: Address) -> socket.socket:
        try:
            if address.kind is not Kind.REDIS:
                return _connect_unix(_socket_path(address), self._left_s())
            place = address.places[0]
            made = socket.create_connection(place, timeout=self._left_s())
            if address.tls is None:
                return made
            try:
                return address.tls.context.wrap_socket(made, server_hostname=place[0])
            except BaseException:
                made.close()
                raise
        except OSError as error:
            raise self._unreachable(error) from error

    def _read(self) -> Any:
        """One answer (https://redis.io/docs/latest/develop/reference/protocol-spec/, RESP2)."""
        self._patient()
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return self._error(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        count = int(rest)
        if count < 0:
            return None
        if kind == b"*":
            return [self._read() for _ in range(count)]
        data = self._answers.read(count + 2)
        if kind != b"$" or len(data) != count + 2:
            raise ConnectionError("what answers is no Redis, or was cut off")
        return data[:-2]

    def _error(self, text: str) -> Exception:
        code = text.split(" ", 1)[0]
        if code in ("WRONGPASS", "NOAUTH") or "AUTH" in text:
            return StoreRefused(
                f"Redis at {self._where} refuses the login: {text}; check user and password of "
                "the URL"
            )
        if code == "NOPERM":
            return StoreRefused(
                f"Redis at {self._where} refuses a command: {text}; grant it with ACL SETUSER"
            )
        if code in ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "MOVED"):
            return StoreUnavailable(f"Redis at {self._where} cannot serve now: {text}")
        return StoreError(f"Redis at {self._where} answered: {text}")

    def _patient(self) -> None:
        self._socket.settimeout(self._left_s())

    def _left_s(self) -> float:
        return max(0.001, self._until_s - time.monotonic())

    def _unreachable(self, error: Exception) -> StoreUnavailable:
        text = str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            text = "no server listens there"
        return StoreUnavailable(f"Redis at {self._where} cannot be reached: {text}")


def _encode(words: Words) -> bytes:
    data = [one if isinstance(one, bytes) else str(one).encode() for one in words]
    return b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in data)


def _connect_unix(path: str, within_s: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(within_s)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _socket_path(address: Address) -> str:
    """Where a server listens; that of an embedded store is not started, and nothing is made."""
    if address.kind is Kind.UNIX:
        return address.path
    from .embedded_files import default_directory, socket_path

    directory = Path(unquote(address.path)) if address.path else default_directory(Path.cwd())
    return str(socket_path(directory.resolve()))
