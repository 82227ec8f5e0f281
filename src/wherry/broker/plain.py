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
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import ConfigError, StoreError, StoreRefused, StoreUnavailable
from .passwords import hide_password

SCHEMES = frozenset({"redis", "rediss", "unix", "embedded"})
"""Those of the stores that it reaches."""

Words = Sequence[str | bytes | int]


class PlainConnection:
    """One connection to a server; answers are bytes, int, None and lists of these.

    Every call raises `StoreUnavailable` when no answer came in time.
    """

    __slots__ = ("_answers", "_socket", "_until_s", "_where")

    def __init__(self, url: str, *, within_s: float) -> None:
        """Connect and log in; all that is asked must be answered within so many seconds.

        Raises:
            ConfigError: not a URL of `SCHEMES`, or malformed.
            StoreUnavailable: nobody answers there.
            StoreRefused: the login is wrong, or none is given where one is wanted.
        """
        self._where = hide_password(url)
        self._until_s = time.monotonic() + within_s
        try:
            login, database = self._open(url)
        except OSError as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise ConfigError(f"store URL {self._where!r} is malformed") from error
        self._answers = cast("BinaryIO", self._socket.makefile("rb"))
        first: list[Words] = [("AUTH", *login)] if login else []
        # Not for the first one: a user may lack a right that is not needed.
        first += [("SELECT", database)] if database not in ("", "0") else []
        try:
            for answer in self.calls(first):
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

    def _open(self, url: str) -> tuple[list[str], str]:
        """Connect; returns the login ([user,] password) and the database."""
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        user = unquote(parts.username or "") or query.get("username", "")
        password = unquote(parts.password or "") or query.get("password", "")
        login = [*([user] if user else []), password] if password else []
        if parts.scheme in ("unix", "embedded"):
            path = unquote(parts.path)
            if parts.scheme == "embedded":
                path = str(_embedded_socket(unquote(url.partition("://")[2])))
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._patient()
                self._socket.connect(path)
            except BaseException:
                self._socket.close()
                raise
            return login, query.get("db", "")
        host = parts.hostname or "localhost"
        address = (unquote(host), parts.port or 6379)
        self._socket = socket.create_connection(address, timeout=self._left_s())
        if parts.scheme == "rediss":
            self._socket = _secure(self._socket, address[0], query)
        return login, query.get("db", "") or parts.path.strip("/")

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


def _embedded_socket(path: str) -> Path:
    """Where the server of an embedded store listens; none is started and nothing is made."""
    from .embedded_files import default_directory, socket_path

    directory = Path(path) if path else default_directory(Path.cwd())
    return socket_path(directory.resolve())


def _secure(plain: socket.socket, host: str, query: dict[str, str]) -> socket.socket:
    """TLS as redis-py does it for the same URL."""
    import ssl

    wanted = query.get("ssl_cert_reqs", "required")
    context = ssl.create_default_context(
        cafile=query.get("ssl_ca_certs"), capath=query.get("ssl_ca_path")
    )
    if wanted == "none" or query.get("ssl_check_hostname", "true").lower() in ("false", "0", "no"):
        context.check_hostname = False
    if wanted == "none":
        context.verify_mode = ssl.CERT_NONE
    if "ssl_certfile" in query:
        context.load_cert_chain(query["ssl_certfile"], query.get("ssl_keyfile"))
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
