"""Relay: stands between a client and its server and counts round trips.

A round trip begins when the client sends after the server has answered, or for the first time; in
how many pieces bytes come does not matter. A write so large that its first commands are answered
while its last are on their way counts more than once: there are at most so many.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

_PIECE_BYTES = 2**16


@dataclass(slots=True)
class Relay:
    """What went through.

    Attributes:
        url: where the client connects.
        trips: round trips so far, on all connections together.
    """

    url: str = ""
    trips: int = 0


@contextlib.asynccontextmanager
async def relaying(url: str) -> AsyncIterator[Relay]:
    """Relay to a server until the end of the block; the client has disconnected by then."""
    relay = Relay()
    target = urlsplit(url)
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        answers, onwards = await asyncio.open_connection(target.hostname, target.port)
        is_asking = False

        async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            nonlocal is_asking
            while piece := await source.read(_PIECE_BYTES):
                is_question = source is reader
                relay.trips += is_question and not is_asking
                is_asking = is_question
                to.write(piece)
                await to.drain()
            to.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(carry(reader, onwards))
            tasks.create_task(carry(answers, writer))
        for one in (onwards, writer):
            await one.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        relay.url = f"redis://{host}:{port}/0"
        yield relay
    await asyncio.wait([one for one in serving if one is not None])
