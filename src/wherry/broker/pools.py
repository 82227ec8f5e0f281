"""Pools: redis-py's clients and connections for the kind of store that an address names.

They never retry by themselves, speak RESP2, and do not look after idle connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from .connection import Endpoint
from .packing import async_pool
from .sentinels import PrimaryPool, Sentinels, connect_primary
from .urls import Address, Kind

_T = TypeVar("_T")
Greet = Callable[[Any], Awaitable[None]]
"""What is done with each new connection of redis-py's."""


class Pools:
    """Makes clients for one address, each with connections of its own.

    Attributes:
        only_primary: whether a replica that answers is the wrong server.
        connect_timeout_s: longest time for a connection to come about.
    """

    __slots__ = ("_address", "_base", "_sentinels", "connect_timeout_s", "only_primary")

    def __init__(self, address: Address) -> None:
        """Connect to nothing yet."""
        self._address = address
        self._sentinels = Sentinels(address) if address.kind is Kind.SENTINEL else None
        self.only_primary = self._sentinels is not None
        self.connect_timeout_s = address.connect_timeout_s
        # A URL without a place, from which redis-py takes the kind of connection alone.
        is_unix, is_tls = address.kind is Kind.UNIX, address.tls is not None
        self._base = "unix://" if is_unix else "rediss://" if is_tls else "redis://"

    def of(self, place: tuple[str, int]) -> Pools:
        """The same for one node of a cluster."""
        return Pools(replace(self._address, kind=Kind.REDIS, places=(place,)))

    async def reach(self, attempt: Callable[[Endpoint], Awaitable[_T]]) -> _T:
        """What an attempt to connect gives, as `Sentinels.reach` says."""
        address, login = self._address, self._address.login
        endpoint = Endpoint(
            path=address.path,
            tls=address.tls.context if address.tls else None,
            username=login.get("username", ""),
            password=login.get("password", ""),
            database=login.get("db", 0),
        )
        if self._sentinels is not None:
            return await self._sentinels.reach(
                lambda place: attempt(replace(endpoint, host=place[0], port=place[1]))
            )
        if address.kind is not Kind.UNIX:
            host, port = address.places[0]
            endpoint = replace(endpoint, host=host, port=port)
        return await attempt(endpoint)

    def client(self, answer_timeout_s: float | None, greet: Greet) -> aioredis.Redis:
        """An asyncio client; ``greet`` is run with each new connection."""
        keywords = self._keywords(answer_timeout_s) | {
            "retry": Retry(NoBackoff(), 0),
            "redis_connect_func": greet,
        }
        pool = async_pool(self._base, **keywords)
        if self._sentinels is not None:
            kind = pool.connection_class
            pool = PrimaryPool(self._sentinels, connection_class=kind, **pool.connection_kwargs)
        return aioredis.Redis.from_pool(pool)

    def blocking_connection(self, answer_timeout_s: float) -> Any:
        """A connection for one thread, connected; raises redis-py's errors."""
        keywords = self._keywords(answer_timeout_s) | {"retry": SyncRetry(NoBackoff(), 0)}
        if self._sentinels is not None:
            return connect_primary(
                self._sentinels,
                lambda place: _connection(self._base, {**keywords, **place}),
            )
        connection = _connection(self._base, keywords)
        connection.connect()
        return connection

    def _keywords(self, answer_timeout_s: float | None) -> dict[str, Any]:
        return {
            **self._address.server,
            "protocol": 2,
            "socket_timeout": answer_timeout_s,
            "health_check_interval": 0,
            "driver_info": None,  # no CLIENT SETINFO: a round trip, and a right to it
        }


def _connection(base: str, keywords: Mapping[str, Any]) -> Any:
    # Redis-py leaves the keywords of this untyped.
    return cast("Any", redis.ConnectionPool).from_url(base, **keywords).make_connection()
