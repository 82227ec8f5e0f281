"""A proxy that loses requests, or answers: then what was asked is done and nobody learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards connections.

    So many requests or answers (chunks of them) are lost, and their connections with them.
    """

    def __init__(self, server_port: int) -> None:
        self.url = ""
        self.lose_requests = 0
        self.lose_answers = 0
        self.lost = 0
        self.idle = asyncio.Event()
        self._server_port = server_port
        self._writers: set[asyncio.StreamWriter] = set()

    def close(self) -> None:
        """Let all connections end by themselves; `idle` is set when they have."""
        if not self._writers:
            self.idle.set()
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, up_writer))
                group.create_task(self._answer(up_reader, writer, up_writer))
        except* ConnectionError:
            pass
        finally:
            writer.close()
            up_writer.close()
            self._writers -= {writer, up_writer}
            if not self._writers:
                self.idle.set()

    async def _ask(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.lose_requests:
                self.lose_requests -= 1
                break
            up.write(data)
        up.close()

    async def _answer(
        self,
        up: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        while data := await up.read(65_536):
            if self.lose_answers:
                self.lose_answers -= 1
                self.lost += 1
                up_writer.close()
                break
            writer.write(data)
        writer.close()


@asynccontextmanager
async def proxy(server_port: int) -> AsyncIterator[Proxy]:
    one = Proxy(server_port)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield one
    finally:
        server.close()
        one.idle.clear()
        one.close()
        async with asyncio.timeout(5):
            await one.idle.wait()
        await asyncio.sleep(0)  # the task that served last ends
