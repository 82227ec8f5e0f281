"""Connection: a bare socket to the server, for the side that measures.

It costs as little as can be, and the same whoever answers: commands are packed and answers parsed
by hiredis, with nothing between.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import hiredis
import redis

_RECEIVE_BYTES = 2**16
_TIMEOUT_S = 30.0

# Its type says: a tuple of exactly one argument.
pack = cast("Callable[[tuple[Any, ...]], bytes]", cast("Any", hiredis).pack_command)


class Connection:
    """One blocking connection."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._reader = hiredis.Reader()

    def write(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Send commands in one write."""
        self._socket.sendall(b"".join(map(pack, commands)))

    def read(self) -> Any:
        """The next answer; raises what the server refuses."""
        while (answer := self._reader.gets()) is False:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise redis.ConnectionError("the server has closed the connection")
            self._reader.feed(received)
        if isinstance(answer, Exception):
            raise redis.ResponseError(str(answer))
        return answer


@contextlib.contextmanager
def connected(client: redis.Redis) -> Iterator[Connection]:
    """A connection to the server of a client."""
    address = client.get_connection_kwargs()
    with socket.create_connection((address["host"], address["port"]), _TIMEOUT_S) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Connection(one)
