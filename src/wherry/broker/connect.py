"""Connections: from a store's URL to links that send commands and return raw answers.

Redis-py is met here, and its errors in `wherry.broker.mapping`; nowhere else. It never
retries by itself, because what may be sent again is the caller's knowledge: a silent resend
loses the order of reads and doubles writes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import unquote

import fakeredis
import redis.asyncio as aioredis
import redis.exceptions as redis_errors

from ..errors import WherryError
from .blocking import BlockingLink, ClusterSyncLink, SyncLink
from .cluster import ClusterLink
from .connection import Told
from .embedded import EmbeddedStore, default_directory, open_embedded
from .heeding import heeding_cancellation
from .history import Meeting, read_history
from .link import Argument, Command, Link
from .mapping import is_of_a_replica, map_error
from .memory import MemoryServer, memory_server
from .pools import Greet, Pools
from .sentinels import check_primary
from .single import SingleLink
from .slot_link import SlotLinks
from .slots import Place
from .subscription import QUIET_S, Subscription
from .topology import Topology, shown_node
from .urls import Address, Kind, parse_url


class CommandLink(Link, Protocol):
    """A link for as many calls at a time as there are, and for pub/sub."""

    async def subscribe(self, *channels: str) -> Subscription:
        """Listen to channels on a connection of its own; raises as `Link.call` does."""
        ...


class PooledLink:
    """Implements `wherry.broker.link.Link`, with as many connections as there are calls.

    Attributes:
        only_primary: refuse to talk to a replica.
        is_memory: what answers is in this process, and never half alive.
    """

    __slots__ = (
        "_client", "_history", "_is_astray", "_make", "_where",
        "client_id", "connects", "is_memory", "joins_slots", "only_primary", "past",
    )  # fmt: skip

    def __init__(self, make: Callable[[Greet], aioredis.Redis], where: str) -> None:
        """Use clients that ``make`` makes, with what they are to do with each new connection."""
        self._make = make
        self._client = self._make_client()
        self._where = where
        self.connects = 0
        self.client_id: int | None = None
        self.past: Meeting | None = None
        self.joins_slots = True
        self.only_primary = False
        self.is_memory = False
        self._history: str | None = None
        self._is_astray = False

    async def greet(self, connection: Any) -> None:
        """Run by redis-py on each new connection: count it, ask for its number, and name it.

        Raises:
            ConnectionError: once for each other history; the call was meant for the one before.
        """
        await connection.on_connect()
        if self.only_primary:
            await check_primary(connection)
        self.connects += 1
        self.client_id = None
        try:
            await connection.send_command("CLIENT", "ID")
            self.client_id = int(await connection.read_response())
            await connection.send_command("CLIENT", "SETNAME", "wherry")
            await connection.read_response()
        except redis_errors.ResponseError:
            pass  # a user without the right to these is served all the same
        if self.past is not None:
            known, self._history = self._history, await read_history(connection)
            await self.past.meet(self._history, self)
            if known not in (None, self._history):
                raise redis_errors.ConnectionError("Redis was restarted or replaced")

    async def call(self, *command: Argument) -> Any:
        """See `wherry.broker.link.Link`."""
        try:
            with heeding_cancellation():
                return await cast("Any", self._client).execute_command(*command)
        except (redis_errors.RedisError, OSError) as error:
            if is_of_a_replica(error):
                await self.reconnect()
            raise map_error(error, self._where) from error

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `wherry.broker.link.Link`."""
        pipeline = cast("Any", self._client.pipeline(transaction=False))
        for command in commands:
            pipeline.execute_command(*command)
        try:
            with heeding_cancellation():
                answers = await pipeline.execute(raise_on_error=False)
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error
        answers = [
            self._map(answer) if isinstance(answer, Exception) else answer for answer in answers
        ]
        if self._is_astray:
            await self.reconnect()
        return answers

    async def subscribe(self, *channels: str) -> Subscription:
        """Listen to pub/sub channels on a connection of its own."""
        pubsub = cast("Any", self._client).pubsub()
        try:
            with heeding_cancellation():
                await pubsub.subscribe(*channels)
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error
        quiet_s = None if self.is_memory else QUIET_S
        return Subscription(pubsub, channels, self._where, quiet_s)

    def _map(self, error: Exception) -> WherryError:
        self._is_astray |= is_of_a_replica(error)
        return map_error(error, self._where)

    async def reconnect(self) -> None:
        """See `wherry.broker.link.Link`."""
        self._is_astray = False
        # Not from a pool that is in use: a connection may be taken, or made, while it is closed.
        pool, self._client = self._client.connection_pool, self._make_client()
        await pool.update_active_connections_for_reconnect()
        with contextlib.suppress(redis_errors.RedisError):  # too slow to close: it is left alone
            await pool.disconnect(inuse_connections=False)

    def _make_client(self) -> aioredis.Redis:
        client = self._make(self.greet)
        client.response_callbacks.clear()  # answers are not reshaped
        return client

    async def aclose(self) -> None:
        """See `wherry.broker.link.Link`."""
        await self._client.aclose(close_connection_pool=True)


class Store:
    """Where the data is. Cheap: connects only when a link is used.

    Attributes:
        where: the place, fit to be shown: no password.
        is_memory: whether it lives in this process only.
        topology: who serves which slot of a cluster; None if it is none.
        unix_s: now, by this computer's clock, or by the store's own if it is in memory.
    """

    __slots__ = (
        "_address", "_embedded", "_memory", "_pools", "is_memory", "topology", "unix_s", "where",
    )  # fmt: skip

    def __init__(
        self,
        address: Address,
        *,
        memory: MemoryServer | None = None,
        embedded: EmbeddedStore | None = None,
    ) -> None:
        """Use `open_store`; this only keeps what that has found."""
        self._address = address
        self._pools = Pools(address)
        self.topology = Topology(address) if address.kind is Kind.CLUSTER else None
        self._memory = memory
        self._embedded = embedded
        self.is_memory = memory is not None
        self.unix_s = time.time if memory is None else lambda: memory.unix_s()
        self.where = address.shown

    def link(self, *, answer_timeout_s: float | None = 10.0) -> CommandLink:
        """A link with connections of its own, for one event loop.

        Args:
            answer_timeout_s: no answer for longer breaks the connection; for a blocking read
                it must be above the time it blocks.
        """
        if self.topology is None:
            return self._pooled(self._pools, self.where, answer_timeout_s)

        def make(place: Place) -> Link:
            return self._pooled(self._pools.of(place), self._shown(place), answer_timeout_s)

        return ClusterLink(self.topology, make)

    def _pooled(self, pools: Pools, where: str, answer_timeout_s: float | None) -> PooledLink:
        def make(greet: Greet) -> aioredis.Redis:
            if self._memory is None:
                return pools.client(answer_timeout_s, greet)
            client = fakeredis.FakeAsyncRedis(server=self._memory, protocol=2)
            client.connection_pool.connection_kwargs["redis_connect_func"] = greet
            return client

        link = PooledLink(make, where)
        link.only_primary = pools.only_primary
        link.is_memory = self.is_memory
        return link

    def single_link(self, *, answer_timeout_s: float | None = 10.0) -> Link:
        """The same for one call at a time, quicker: for reads, commits and what clients send.

        In a cluster one call at a time to each node.
        """
        if self._memory is not None:
            return self.link(answer_timeout_s=answer_timeout_s)
        if self.topology is not None:
            return ClusterLink(
                self.topology, lambda place: self._single(place, answer_timeout_s), tries=1
            )
        return SingleLink(self._pools, self.where, answer_timeout_s=answer_timeout_s)

    def reading_link(self, key: str, *, answer_timeout_s: float | None = 10.0) -> Link:
        """A link for blocking reads of a stream, and of others that can share a read with it."""
        if self.topology is None:
            return self.link(answer_timeout_s=answer_timeout_s)
        return self.slot_links(answer_timeout_s=answer_timeout_s).of(key)

    def slot_links(self, *, answer_timeout_s: float | None = 10.0) -> SlotLinks:
        """Links that stay with one slot of a cluster each, for blocking reads."""
        assert self.topology is not None, "only a cluster has slots"
        return SlotLinks(self.topology, lambda place: self._single(place, answer_timeout_s))

    def _single(self, place: Place, answer_timeout_s: float | None) -> SingleLink:
        pools = self._pools.of(place)
        return SingleLink(pools, self._shown(place), answer_timeout_s=answer_timeout_s)

    def _shown(self, place: Place) -> str:
        return shown_node(self._address, place)

    def noticing_link(self, told: Told, *, answer_timeout_s: float | None) -> SingleLink | None:
        """A single link whose server gives notice of what has changed; see `SingleLink`.

        Whether the server can do that turns out when it connects. None: no server of this kind
        of store can, or there are several of them.
        """
        if self._memory is not None or self.topology is not None:
            return None
        return SingleLink(self._pools, self.where, answer_timeout_s=answer_timeout_s, told=told)

    def sync_link(self, *, answer_timeout_s: float = 5.0) -> BlockingLink:
        """A blocking link with connections of its own, for one thread."""
        if self._memory is not None:
            pool = fakeredis.FakeRedis(server=self._memory, protocol=2).connection_pool
            return SyncLink(pool.make_connection, self.where)
        if self.topology is not None:
            return ClusterSyncLink(
                self.topology,
                lambda place: self._pools.of(place).blocking_connection(answer_timeout_s),
                answer_timeout_s,
                self._shown,
            )
        return SyncLink(lambda: self._pools.blocking_connection(answer_timeout_s), self.where)

    def revive(self) -> None:
        """Start an embedded store's server again if it has ended; blocks.

        Raises:
            WherryError: it does not run, see `EmbeddedStore.ensure_running`.
        """
        if self._embedded is not None:
            self._embedded.ensure_running()

    def close(self) -> None:
        """Let go of an embedded store; the server ends with its last user."""
        if self._embedded is not None:
            self._embedded.close()


def open_store(url: str, *, server_binary: str | None = None) -> Store:
    """Open the store of a URL; an embedded server is started if none runs.

    What is reached over a socket or by sentinels connects later, at first use. ``memory://NAME``
    is the same store for every caller in this process.

    Raises:
        ConfigError: not a URL that Wherry knows, or a certificate of it cannot be used.
        StoreNotFound: no server binary for the embedded store.
        StoreRefused: the embedded store's directory belongs to somebody else.
        StoreUnavailable: the embedded server did not start.
    """
    address = parse_url(url)
    if address.kind is Kind.MEMORY:
        return Store(address, memory=memory_server(address.path))
    if address.kind is Kind.EMBEDDED:
        wanted = address.path
        directory = Path(unquote(wanted)) if wanted else default_directory(Path.cwd())
        embedded = open_embedded(directory, binary=server_binary)
        shown = f"embedded://{embedded.directory}"
        path = str(embedded.socket_path)
        return Store(replace(address, kind=Kind.UNIX, path=path, shown=shown), embedded=embedded)
    return Store(address)
