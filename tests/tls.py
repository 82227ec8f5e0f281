"""TLS for the tests: certificates of an authority of their own, and a proxy before a server.

Few packaged servers are built with TLS, so a proxy ends it; where one is, it does so itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

CHUNK_BYTES = 2**16


class Certificates:
    """Files: ``ca`` signs the server's and the client's, ``other_ca`` nothing that is used."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        authority = trustme.CA()
        self.ca = self._write("ca.pem", authority.cert_pem.bytes())
        self.other_ca = self._write("other_ca.pem", trustme.CA().cert_pem.bytes())
        self.server = self._issue(authority, "server", "127.0.0.1")
        self.client = self._issue(authority, "client", "client.test")
        self.elsewhere = self._issue(authority, "elsewhere", "elsewhere.test")

    def context(self, server: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """How a server speaks that wants a certificate of its clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(*(server or self.server))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def options(self, **more: object) -> str:
        """A URL's options for a client that is let in."""
        cert, key = self.client
        options = {"ssl_ca_certs": self.ca, "ssl_certfile": cert, "ssl_keyfile": key} | more
        return "?" + "&".join(f"{name}={value}" for name, value in options.items() if value)

    def server_args(self, port: int) -> list[str]:
        """Options of a server that is built with TLS."""
        cert, key = self.server
        args = ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
        return [*args, "--tls-ca-cert-file", str(self.ca)]

    def _issue(self, authority: trustme.CA, name: str, identity: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(identity)
        chain = b"".join(one.bytes() for one in issued.cert_chain_pems)
        key = issued.private_key_pem.bytes()
        return self._write(f"{name}.pem", chain), self._write(f"{name}.key", key)

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path


class TlsProxy:
    """`tls_before` in a thread of its own, until it is closed; ``port`` is where it listens."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._run(port, context)), name="tls"
        )
        self._thread.start()
        self._ready.wait()

    async def _run(self, port: int, context: ssl.SSLContext) -> None:
        async with tls_before(port, context) as self.port:
            self._ready.set()
            await self._closing.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._loop.close()


def is_built_with_tls(binary: Path) -> bool:
    return b"SSL_CTX_new" in binary.read_bytes()


@asynccontextmanager
async def tls_before(port: int, context: ssl.SSLContext) -> AsyncGenerator[int]:
    """Listen with TLS before a server's port; yields the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        answers, onward = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, onward))
                pumps.create_task(_pump(answers, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            onward.transport.abort()
            writer.transport.abort()
            tasks.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))
        await listener.wait_closed()
        # Those that were refused, or are not through with their greeting: asyncio's own tasks.
        own = {asyncio.current_task()}
        greeting = [
            task for task in asyncio.all_tasks() - own if "_accept_connection2" in repr(task)
        ]
        if greeting:
            await asyncio.wait(greeting)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    raise ConnectionAbortedError("one end has closed")
