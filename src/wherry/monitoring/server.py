"""Server: answers probes and scrapers on a thread and an event loop of its own.

It answers while the application's loop is blocked; that is what it is for. Few connections are open
at a time: one more pushes out the oldest, so that those who hold connections for nothing keep
nobody else out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError
from ..hooks import Hooks
from .http import REQUEST_BYTES, Request, Response, encode, read_request

CONNECTIONS = 32
WRITE_WITHIN_S = 5.0
STOP_WITHIN_S = 5.0
Handler = Callable[[], Awaitable[Response]]


class Site(Protocol):
    """What is served; made and closed in the thread's loop."""

    def routes(self) -> Mapping[str, Handler]:
        """Path -> what answers it."""
        ...

    async def aclose(self) -> None:
        """Nothing is asked any more."""
        ...


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any free one.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server((str(address[0]), port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"http_port {port} of http_host {host!r} cannot be listened on: {reason}; choose "
            "another --http-port, or end what listens there"
        ) from error


def listen_unix(path: Path) -> socket.socket:
    """A listening unix socket that only this user may connect to.

    Raises:
        ConfigError: it cannot be had.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(f"unix socket {path} cannot be listened on: {error.strerror}") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Where it listens, as people write it."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server:
    """Serves a site on one listening socket: `start` it in a thread, or `serve` in a loop."""

    def __init__(self, listening: socket.socket, site: Site, hooks: Hooks) -> None:
        """Take over a listening socket."""
        self.address = address_of(listening)
        self._listening = listening
        self._site = site
        self._hooks = hooks
        self._open: dict[asyncio.StreamWriter, None] = {}  # oldest first
        self._thread = threading.Thread(target=self._work, name="monitoring", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event
        self._started = threading.Event()

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Answer no more; returns when the thread has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_WITHIN_S)

    def _work(self) -> None:
        try:
            asyncio.run(self.serve())
        except Exception as error:  # noqa: BLE001 - a thread's end is heard by nobody else
            self._hooks.failed("probes and metrics are not served any more", error)
        finally:
            self._started.set()

    async def serve(self) -> None:
        """Answer in this loop, until cancelled; instead of `start`, where nothing blocks it."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        is_unix = self._listening.family == socket.AF_UNIX
        start = asyncio.start_unix_server if is_unix else asyncio.start_server
        server = await start(self._serve, sock=self._listening, limit=REQUEST_BYTES)
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._site.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = None
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()  # slow, or gone
        finally:
            self._open.pop(writer, None)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if request is None:
            return
        if isinstance(request, Response):
            writer.write(encode(request))
        else:
            writer.write(encode(await self._respond(request), is_head=request.is_head))
        async with asyncio.timeout(WRITE_WITHIN_S):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def _respond(self, request: Request) -> Response:
        routes = self._site.routes()
        handler = routes.get(request.path)
        if handler is None:
            return Response(404, f"there are {', '.join(routes)}\n")
        try:
            return await handler()
        except Exception as error:  # noqa: BLE001 - one answer that fails must not end the others
            self._hooks.failed("a probe or scrape failed", error, path=request.path)
            return Response(500, "this failed; the worker's log says why\n")
