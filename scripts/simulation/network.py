"""Network: redis-py's connections to the simulated server, on which faults strike.

Everything above is the product as it ships, redis-py included: only what would be a socket is
replaced. A call is carried out at once when it reaches the server, whatever its worker does then.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis.asyncio as aioredis
import redis.exceptions as redis_errors
from fakeredis.aioredis import FakeAsyncRedisConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from wherry.broker.connect import PooledLink, Store
from wherry.broker.pools import Greet
from wherry.broker.urls import parse_url

from .agenda import SimulatedLoop, in_world
from .points import kinds_of
from .server import Fields, Server, Socket, encode

PRODUCER = "producer"
_CUT = object()
"""What a connection finds instead of an answer when it was cut."""


class Strikes(Protocol):
    """Decides which calls are struck; see `story.Story`."""

    def strike(self, node: Node, kinds: Sequence[str]) -> str | None:
        """``<where>.<what>`` for this call, or None."""
        ...

    def stall(self, node: Node) -> None:
        """Freeze a worker."""
        ...

    def crash(self, node: Node) -> None:
        """End a worker."""
        ...

    def arrived(self, fields: Fields) -> None:
        """A command is about to be carried out."""
        ...

    def carried_out(self, node: Node, fields: Fields, answer: Any, *, is_late: bool) -> None:
        """Redis has carried a command out; ``is_late``: nobody waits for its answer."""
        ...


@dataclass(eq=False)
class Node:
    """A machine on the network: a worker, or the producer.

    Attributes:
        name: of it.
        is_dead: nothing comes from it any more.
        connections: those that are open.
    """

    name: str
    network: Network
    is_dead: bool = False
    connections: dict[Connection, None] = field(default_factory=dict)

    def cut(self) -> None:
        """Break all its connections."""
        for connection in list(self.connections):
            connection.cut()


class Network:
    """Between the nodes and one server."""

    def __init__(
        self,
        loop: SimulatedLoop,
        server: Server,
        chance: random.Random,
        strikes: Strikes,
        timeout_s: float,
    ) -> None:
        self.loop = loop
        self.server = server
        self.chance = chance
        self.strikes = strikes
        self.timeout_s = timeout_s
        self._trace = hashlib.blake2b(digest_size=8)
        self.tell: Callable[[str], None] | None = None
        self.calls = 0
        self.is_info_forbidden = False

    def note(self, *facts: object) -> None:
        """Something happened; the same seed has the same notes."""
        line = f"{self.loop.time():.4f} " + " ".join(map(str, facts))
        self._trace.update(line.encode())
        if self.tell is not None:
            self.tell(line)

    @property
    def trace(self) -> str:
        """Hash of all notes so far."""
        return self._trace.hexdigest()

    def wait_s(self) -> float:
        """How long a call or an answer is on its way when nothing is wrong."""
        draw = self.chance.random()
        if draw < 0.5:
            return 0.0
        return draw * 0.002 if draw < 0.95 else draw * 0.04

    def late_s(self) -> float:
        """How long when something is."""
        return self.chance.choice((0.05, 0.2, 0.5, 1.0)) * (0.5 + self.chance.random())


class Connection(FakeAsyncRedisConnection):
    """One connection of a node."""

    def __init__(self, *, node: Node, **options: Any) -> None:
        super().__init__(**options)
        self._node = node
        self._fate: str | None = None
        self._wait_s = 0.0
        self._is_cut = False

    def pack_command(self, *arguments: Any) -> list[Any]:
        """Not at all; the server takes them as they are."""
        return [encode((*arguments[0].split(), *arguments[1:]))]

    def pack_commands(self, commands: Any) -> list[Any]:
        """The same for many."""
        return [encode(command) for command in commands]

    async def _connect(self) -> None:
        if self._node.is_dead:
            raise redis_errors.ConnectionError("this node is dead")
        await super()._connect()
        self._sock: Any = Socket(self._server, self.db, client_class=aioredis.Redis)
        self._is_cut = False
        self._fate = None
        self._node.connections[self] = None

    async def disconnect(self, nowait: bool = False, **options: Any) -> None:
        """Close it; what is on its way to the server still arrives."""
        self._node.connections.pop(self, None)
        await super().disconnect(nowait=nowait, **options)

    def cut(self) -> None:
        """Break it: whoever waits for an answer is told, and whoever sends the next call."""
        self._is_cut = True
        if self._sock is not None:
            self._sock.put_response(_CUT)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Carry a call to the server, or fail to."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if self._node.is_dead or self._is_cut:
            await self._break("was cut")
        kinds = kinds_of(command)
        network = self._node.network
        fate = network.strikes.strike(self._node, kinds) if kinds else None
        network.calls += 1
        network.note(self._node.name, *(kinds or command[0][:2]), fate or "")
        self._fate = None
        if fate is not None and fate.startswith("before"):
            await self._before(fate, command)
        else:
            self._fate = fate
            if wait_s := network.wait_s():
                await self._travel(wait_s, command)
        if self._is_cut:
            await self._break("was cut")
        self._carry_out(self._sock, command)
        self._wait_s = network.wait_s()

    async def _travel(self, wait_s: float, command: Any) -> None:
        """A call is on its way; whoever gives up waiting does not know whether it arrives."""
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            if self._node.network.chance.random() < 0.5:
                self._carry_out(self._sock, command, is_late=True)
            await self.disconnect(nowait=True)  # as redis-py does
            raise

    async def _before(self, fate: str, command: Any) -> None:
        network = self._node.network
        if fate == "before.delay":
            await self._travel(network.late_s(), command)
        elif fate == "before.lost":
            await asyncio.sleep(network.timeout_s)
            await self._time_out()
        elif fate == "before.stall":
            network.strikes.stall(self._node)
            await asyncio.sleep(0)
        elif fate == "before.crash":
            network.strikes.crash(self._node)
            await asyncio.sleep(0)
            await self._break("is gone")
        else:
            if fate == "before.late":
                socket = self._sock
                network.loop.at(
                    network.late_s(), lambda: self._carry_out(socket, command, is_late=True)
                )
            await self._break("broke")

    def _carry_out(self, socket: Any, commands: Sequence[Fields], *, is_late: bool = False) -> None:
        if socket is None or socket.responses is None:
            return
        server = self._node.network.server
        for fields in commands:
            if fields[0] == b"INFO" and self._node.network.is_info_forbidden:
                socket.put_response(redis_errors.NoPermissionError("NOPERM no INFO for you"))
            elif fields[0] == b"INFO":
                socket.put_response(b"run_id:%d\r\nmaster_replid:0\r\n" % server.run_id)
            else:
                self._node.network.strikes.arrived(fields)
                in_world(socket._process_command, fields)
                self._node.network.strikes.carried_out(
                    self._node, fields, socket.last, is_late=is_late
                )

    async def _break(self, why: str) -> None:
        await self.disconnect(nowait=True)
        raise redis_errors.ConnectionError(f"the connection {why}")

    async def _time_out(self) -> None:
        await self.disconnect(nowait=True)
        raise redis_errors.TimeoutError("Timeout reading from socket")

    async def _read_response(self, **options: Any) -> Any:
        socket, network = self._sock, self._node.network
        if socket is None:
            raise redis_errors.ConnectionError("the connection is closed")
        answer = await socket.responses.get()
        fate, self._fate = self._fate, None
        wait_s, self._wait_s = self._wait_s, 0.0
        if fate == "after.delay":
            wait_s = network.late_s()
        elif fate == "after.stall":
            network.strikes.stall(self._node)
            await asyncio.sleep(0)
        elif fate == "after.crash":
            network.strikes.crash(self._node)
            await asyncio.sleep(0)
        elif fate == "after.lost":
            await asyncio.sleep(network.timeout_s)
            raise redis_errors.TimeoutError("Timeout reading from socket")
        elif fate == "after.error" or answer is _CUT:
            raise redis_errors.ConnectionError("the connection broke")
        if wait_s:
            await asyncio.sleep(wait_s)
        if self._is_cut:
            raise redis_errors.ConnectionError("the connection was cut")
        return answer


class SimulatedStore(Store):
    """The store as one node sees it."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        super().__init__(parse_url("memory://simulation"), memory=node.network.server)
        self._node = node

    def link(self, *, answer_timeout_s: float | None = 10.0) -> PooledLink:
        """A link over the simulated network; redis-py does not retry, as in production."""

        def make(greet: Greet) -> aioredis.Redis:
            pool = aioredis.ConnectionPool(
                connection_class=Connection,
                node=self._node,
                server=self._node.network.server,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
                driver_info=None,
                redis_connect_func=greet,
            )
            return aioredis.Redis.from_pool(pool)

        return PooledLink(make, self.where)
