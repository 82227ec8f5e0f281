"""A proxy between the product and a server: it loses, holds back or swallows what passes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Wire:
    """One connection through the proxy.

    `asked` tells what went over it: words such as XREAD by which a test knows its purpose.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    asked: set[bytes] = field(default_factory=lambda: set())
    is_deaf: bool = False


Chooses = Callable[[Wire], bool]


def nobody(wire: Wire) -> bool:
    return False


def everybody(wire: Wire) -> bool:
    return True


def is_reading(wire: Wire) -> bool:
    return b"XREAD" in wire.asked


def is_committing(wire: Wire) -> bool:
    return b"}:attempts" in wire.asked


def is_listening(wire: Wire) -> bool:
    return b"TRACKING" in wire.asked


class Proxy:
    """Forwards connections.

    Attributes:
        lose_requests: so many requests (chunks of them) are lost, their connections with them.
        lose_answers: the same of answers: what was asked is done and nobody learns of it.
        lost: answers lost so far.
        swallows_requests: connections whose requests vanish from now on, though they stay open.
        swallows_answers: the same for answers; a connection that lost any stays deaf for ever.
        refusal: what the server answers instead of doing what it is asked; empty: it is asked.
        refused: commands refused so far.
        server_port: where new connections lead.
    """

    _COMMAND = re.compile(rb"\*\d+\r\n\$")
    _WORDS = (b"XREAD", b"}:attempts", b"SUBSCRIBE", b"TRACKING")

    def __init__(self, server_port: int) -> None:
        self.url = ""
        self.lose_requests = 0
        self.lose_answers = 0
        self.lost = 0
        self.swallows_requests: Chooses = nobody
        self.swallows_answers: Chooses = nobody
        self.refusal = b""
        self.refused = 0
        self.server_port = server_port
        self.idle = asyncio.Event()
        self._passing = asyncio.Event()
        self._passing.set()
        self._wires: set[Wire] = set()

    @property
    def is_swallowing(self) -> bool:
        """Whether an answer was lost on a connection that stays open."""
        return any(wire.is_deaf for wire in self._wires)

    def hold(self) -> None:
        """Let nothing pass, as a network that is down: it is delivered late, by `heal`."""
        self._passing.clear()

    def heal(self) -> None:
        """Let everything pass; what was swallowed is gone."""
        self.swallows_requests = self.swallows_answers = nobody
        self._passing.set()

    def cut(self) -> None:
        """Break every connection."""
        for wire in self._wires:
            wire.client.transport.abort()
            wire.server.transport.abort()

    def close(self) -> None:
        """Let all connections end by themselves; `idle` is set when they have."""
        self._passing.set()
        if not self._wires:
            self.idle.set()
        for wire in self._wires:
            wire.client.close()
            wire.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.close()
            return
        wire = Wire(writer, up_writer)
        self._wires.add(wire)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, wire))
                group.create_task(self._answer(up_reader, wire))
        except* ConnectionError:
            pass
        finally:
            writer.close()
            up_writer.close()
            self._wires.remove(wire)
            if not self._wires:
                self.idle.set()

    async def _ask(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        while data := await reader.read(65_536):
            wire.asked |= {word for word in self._WORDS if word in data}
            await self._passing.wait()
            if self.lose_requests:
                self.lose_requests -= 1
                break
            if self.refusal:
                count = len(self._COMMAND.findall(data))
                self.refused += count
                wire.client.write(count * (b"-" + self.refusal + b"\r\n"))
            elif not self.swallows_requests(wire):
                wire.server.write(data)
        wire.server.close()

    async def _answer(self, up: asyncio.StreamReader, wire: Wire) -> None:
        while data := await up.read(65_536):
            await self._passing.wait()
            if self.lose_answers:
                self.lose_answers -= 1
                self.lost += 1
                wire.server.close()
                break
            if wire.is_deaf or self.swallows_answers(wire):
                wire.is_deaf = True
            else:
                wire.client.write(data)
        wire.client.close()


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
