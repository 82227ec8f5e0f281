"""The server answers whoever asks properly, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.monitoring.asking import connect, get, say
from wherry.errors import ConfigError
from wherry.hooks import Hooks
from wherry.monitoring import http
from wherry.monitoring.http import REQUEST_BYTES, Response
from wherry.monitoring.server import CONNECTIONS, Handler, Server, listen, listen_unix


class Page:
    """A site with one page, one that fails and one that is long in coming."""

    def __init__(self) -> None:
        self.is_closed = False

    def routes(self) -> Mapping[str, Handler]:
        return {"/page": self._page, "/broken": self._broken, "/late": self._late}

    async def aclose(self) -> None:
        self.is_closed = True

    async def _page(self) -> Response:
        return Response(200, "hello\n")

    async def _broken(self) -> Response:
        raise RuntimeError("no page")

    async def _late(self) -> Response:
        await asyncio.sleep(60)
        return Response(200, "late\n")


class Quiet(Hooks):
    """Keeps what failed."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def failed(self, event: str, error: BaseException, **data: object) -> None:
        self.errors.append(error)


@contextlib.contextmanager
def serving(listening: socket.socket, hooks: Hooks | None = None) -> Generator[str]:
    site = Page()
    server = Server(listening, site, hooks or Hooks())
    server.start()
    try:
        yield server.address
    finally:
        server.stop()
    assert site.is_closed
    assert not server._thread.is_alive()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_page_is_served_where_it_was_asked_for(host: str):
    try:
        listening = listen(host, 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with serving(listening) as address:
        assert (await get(address, "/page?x=1")).body == "hello\n"


async def test_head_is_answered_without_a_body():
    with serving(listen("127.0.0.1", 0)) as address:
        answer = await say(address, b"HEAD /page HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.body) == (200, "")
    assert "Content-Length: 6" in answer.head


async def test_unix_socket_is_for_this_user_only(tmp_path: Path):
    path = tmp_path / "probes.sock"
    path.touch()  # left by a process that was killed
    with serving(listen_unix(path)) as address:
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await get(address, "/page")).body == "hello\n"


@pytest.mark.parametrize(
    ("rubbish", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"POST /page HTTP/1.1\r\n\r\n", 405),
        (b"GET /page\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"* HTTP/2.0\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nx: " + b"y" * (2 * REQUEST_BYTES) + b"\r\n\r\n", 431),
        (b"GET /page HTTP/1.1\r\n" + b"x" * (2 * REQUEST_BYTES), 431),
    ],
)
async def test_rubbish_is_refused(rubbish: bytes, status: int):
    with serving(listen("127.0.0.1", 0)) as address:
        reader, writer = await connect(address)
        writer.write(rubbish)
        assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()
        assert (await get(address, "/page")).status == 200


async def test_page_that_fails_is_told_and_ends_nothing():
    hooks = Quiet()
    with serving(listen("127.0.0.1", 0), hooks) as address:
        assert (await get(address, "/broken")).status == 500
        assert (await get(address, "/page")).status == 200
    assert [str(error) for error in hooks.errors] == ["no page"]


@asynccontextmanager
async def holding(address: str, count: int, data: bytes) -> AsyncGenerator[None]:
    """So many connections that say this and no more."""
    writers: list[asyncio.StreamWriter] = []
    for _ in range(count):
        _, writer = await connect(address)
        writer.write(data)
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize("data", [b"", b"GET /pa", b"GET /late HTTP/1.1\r\n\r\n"])
async def test_those_who_hold_connections_keep_nobody_out(data: bytes):
    with serving(listen("127.0.0.1", 0)) as address:
        async with holding(address, 3 * CONNECTIONS, data):
            for _ in range(5):
                assert (await get(address, "/page", within_s=3.0)).body == "hello\n"


async def test_connection_that_never_asks_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "REQUEST_WITHIN_S", 0.05)
    with serving(listen("127.0.0.1", 0)) as address:
        reader, writer = await connect(address)
        writer.write(b"GET /pa")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("no.such.host.invalid", 0)])
def test_port_that_cannot_be_had_is_named(host: str, port: int | None):
    with listen("127.0.0.1", 0) as other:
        taken = other.getsockname()[1] if port is None else port
        with pytest.raises(ConfigError, match=f"http_port {taken} of http_host '{host}'"):
            listen(host, taken)
