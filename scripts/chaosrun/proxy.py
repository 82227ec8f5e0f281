"""A TCP proxy in a process of its own, whose routes can be delayed, held, cut and half-closed.

Each worker has a route of its own to the server; a fault strikes one route. The process reads one
JSON object a line from its standard input and answers each with one; it ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, Self

CHUNK_BYTES = 2**16
UP, DOWN = "up", "down"


@dataclass(slots=True, eq=False)
class _Connection:
    writers: dict[str, asyncio.StreamWriter] = field(default_factory=lambda: {})
    finished: set[str] = field(default_factory=lambda: set())

    def abort(self) -> None:
        """Close both ends as a reset does."""
        for writer in self.writers.values():
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

    def finish(self, direction: str) -> None:
        """Say in one direction that nothing more comes."""
        writer = self.writers.get(direction)
        if writer is not None and not self.is_finished(direction):
            self.finished.add(direction)
            with contextlib.suppress(OSError):
                writer.write_eof()

    def is_finished(self, direction: str) -> bool:
        """Whether nothing more can go in a direction."""
        return direction in self.finished or self.writers[direction].is_closing()


class Route:
    """One way to a server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.delay_s = 0.0
        self._open = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.free()

    async def listen(self) -> int:
        """Start to listen; returns the port."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End it."""
        if self._listener is not None:
            self._listener.close()
        self.cut()

    def hold(self, directions: list[str]) -> None:
        """Pass nothing on in these directions; what comes waits in the sockets' buffers."""
        for direction in directions:
            self._open[direction].clear()

    def free(self) -> None:
        """Pass everything on again."""
        for gate in self._open.values():
            gate.set()

    def cut(self) -> None:
        """Reset all connections."""
        for connection in list(self._connections):
            connection.abort()

    def finish(self, direction: str) -> None:
        """Half-close all connections."""
        for connection in list(self._connections):
            connection.finish(direction)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection()
        connection.writers[DOWN] = writer
        self._connections.add(connection)
        try:
            await self._open[UP].wait()
            answers, connection.writers[UP] = await asyncio.open_connection("127.0.0.1", self.port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, connection, UP), name="pump:up")
                tasks.create_task(self._pump(answers, connection, DOWN), name="pump:down")
        except* OSError:
            pass
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, connection: _Connection, direction: str
    ) -> None:
        writer, gate = connection.writers[direction], self._open[direction]
        while data := await reader.read(CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if not gate.is_set():
                await gate.wait()
            if connection.is_finished(direction):
                continue  # what comes after the end in this direction is read and lost
            writer.write(data)
            await writer.drain()
        connection.finish(direction)


async def _obey(routes: dict[str, Route], order: dict[str, Any]) -> dict[str, Any]:
    """Carry one order out."""
    name, do = order["route"], order["do"]
    if do == "open":
        route = routes[name] = Route(order["port"])
        return {"port": await route.listen()}
    if do == "aim":
        for route in routes.values() if name == "*" else [routes[name]]:
            route.port = order["port"]
            route.free()
            route.cut()
        return {}
    route = routes[name]
    if do == "close":
        await routes.pop(name).close()
    elif do == "delay":
        route.delay_s = order["seconds"]
    elif do == "hold":
        route.hold(order["directions"])
    elif do == "free":
        route.free()
    elif do == "cut":
        route.cut()
    elif do == "finish":
        route.finish(order["direction"])
    else:
        raise ValueError(f"unknown order {do!r}")
    return {}


async def _main() -> None:
    routes: dict[str, Route] = {}
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        print(json.dumps(await _obey(routes, json.loads(line))), flush=True)


class Proxy:
    """The proxy's process, as the fault run sees it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.chaosrun.proxy"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def open(self, route: str, port: int) -> int:
        """Open a route to a port; returns the one where it listens."""
        return int((await self._tell("open", route, port=port))["port"])

    async def close(self, route: str) -> None:
        """Close a route."""
        await self._tell("close", route)

    async def aim(self, port: int, route: str = "*") -> None:
        """Lead a route, or all, to another server; connections are reset."""
        await self._tell("aim", route, port=port)

    async def delay(self, route: str, seconds: float) -> None:
        """Deliver everything later, or at once again (0)."""
        await self._tell("delay", route, seconds=seconds)

    async def hold(self, route: str, *directions: str) -> None:
        """Hold back what goes in these directions, both without any."""
        await self._tell("hold", route, directions=directions or (UP, DOWN))

    async def free(self, route: str) -> None:
        """Let go what was held back."""
        await self._tell("free", route)

    async def cut(self, route: str) -> None:
        """Reset all connections of a route."""
        await self._tell("cut", route)

    async def finish(self, route: str, direction: str) -> None:
        """Half-close all connections of a route."""
        await self._tell("finish", route, direction=direction)

    async def _tell(self, do: str, route: str, **more: object) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._lock:
            process.stdin.write(json.dumps({"do": do, "route": route, **more}).encode() + b"\n")
            return json.loads(await process.stdout.readline())


if __name__ == "__main__":
    asyncio.run(_main())
