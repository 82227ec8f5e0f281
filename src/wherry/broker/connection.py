"""Connection: a socket to a server, commands packed and answers parsed by hiredis.

For the hot paths of workers and clients: redis-py's asyncio connections cost more than twice as
much for each command. One call at a time; nothing is ever sent again by itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from .link import Command
from .login import log_in

# Its type says: a tuple of exactly one argument.
_pack = cast("Callable[[tuple[Any, ...]], bytes]", cast("Any", hiredis).pack_command)
_BUFFER_BYTES = 2**18
"""Largest piece that is taken from the socket at a time: a read of a full batch is few of them."""
Told = Callable[[list[Any] | None], None]
"""Is given what a server says unasked (RESP3's pushes), and None when it can say no more."""


class ErrorAnswer(Exception):
    """An answer that is an error, as the server worded it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server listens and who asks.

    Attributes:
        host: name or address, "" for a unix socket.
        port: of the host.
        path: of a unix socket, "" for a host.
        tls: how to encrypt, or None.
        username: of an ACL user, "" for the default one.
        password: "" without a login.
        database: number.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = ""
    database: int = 0

    def login(self) -> Sequence[Command]:
        """See `wherry.broker.login.log_in`."""
        return log_in(self.username, self.password, self.database)


class Connection(asyncio.BufferedProtocol):
    """One socket, from `connect` to `close`; then make another.

    Attributes:
        told: is given what the server says unasked; None: it says nothing.
    """

    __slots__ = (
        "_answers", "_buffer", "_closed", "_is_heard",
        "_reader", "_timer", "_transport", "_waiter", "_wanted", "told",
    )  # fmt: skip

    def __init__(self) -> None:
        """Use `connect`."""
        self.told: Told | None = None
        # A slice of a bytearray is a copy, and asyncio's TLS reads on into a slice.
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._reader = hiredis.Reader(replyError=ErrorAnswer)
        self._answers: list[Any] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_heard = False  # since the timer was set
        self._closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._transport is not None

    async def ask(self, commands: Sequence[Command], timeout_s: float | None) -> list[Any]:
        """Send commands in one write; return their answers, an error as an `ErrorAnswer`.

        A call that is cancelled, or not answered in time, closes the connection: what comes
        later would be taken for the answer to the next one.

        Raises:
            OSError: the connection is closed, or broke; what was sent may have been carried out.
            TimeoutError: nothing came for ``timeout_s``. A large answer may take longer, as long as
                it comes.
        """
        if self._transport is None:
            raise ConnectionError("the connection is closed")
        assert self._waiter is None, "one call at a time"
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        self._answers, self._wanted = [], len(commands)
        if timeout_s is not None:
            self._expect(timeout_s)
        try:
            self._transport.write(b"".join([_pack(tuple(command)) for command in commands]))
            await waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        answers, self._answers = self._answers, []
        return answers

    def _expect(self, timeout_s: float) -> None:
        self._is_heard = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout_s, self._expire, timeout_s)

    def _expire(self, timeout_s: float) -> None:
        if self._is_heard:
            self._expect(timeout_s)
            return
        self._fail(TimeoutError(f"no answer for {timeout_s:g} s"))

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def close(self) -> None:
        """Close it at once; a call under way fails."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._fail(ConnectionError("the connection was closed"))

    async def wait_closed(self) -> None:
        """Return when the socket is gone."""
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = None
        self._fail(exc or ConnectionError("the server closed the connection"))
        self._closed.set()
        if self.told is not None:
            self.told(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._is_heard = True
        reader, answers = self._reader, self._answers
        reader.feed(cast("Any", self._buffer), 0, nbytes)  # its type asks for bytes
        try:
            while (answer := reader.gets()) is not False:
                answers.append(answer)
        except hiredis.ProtocolError as error:
            self._fail(ConnectionError(f"what answers does not speak Redis' protocol: {error}"))
            self.close()
            return
        if self.told is not None:
            answers = self._answers = _set_aside(answers, self.told)
        if len(answers) >= self._wanted and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _set_aside(answers: list[Any], told: Told) -> list[Any]:
    """The answers without what the server said unasked, which ``told`` is given."""
    asked: list[Any] = []
    for answer in answers:
        if isinstance(answer, hiredis.PushNotification):
            told(answer)
        else:
            asked.append(answer)
    return asked


async def connect(endpoint: Endpoint) -> Connection:
    """A connection that is not logged in yet; raises OSError."""
    loop = asyncio.get_running_loop()
    if endpoint.path:
        _, made = await loop.create_unix_connection(Connection, endpoint.path)
    else:
        _, made = await loop.create_connection(
            Connection, endpoint.host, endpoint.port, ssl=endpoint.tls
        )
    return made
