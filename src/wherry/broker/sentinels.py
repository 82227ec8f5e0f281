"""Sentinels: who is the primary, asked anew whenever a connection is made.

Redis-py's own classes remember the last answer, and close what goes elsewhere under those who
use it. Here nothing is remembered but which sentinel answered last. What one of them names is
believed when the server says itself that it is a primary; else the next sentinel is asked.
See https://redis.io/docs/latest/develop/reference/sentinel-clients/.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis
import redis.asyncio as aioredis
import redis.exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from ..errors import StoreUnavailable
from .heeding import heeding_cancellation
from .history import OtherHistory
from .urls import Address

NO_PRIMARY = "what it names is a replica"
ASK_WITHIN_S = 1.0
"""A sentinel that is silent for longer is passed over."""
_WRONG = (redis_errors.RedisError, OSError)
_REFUSED = (redis_errors.AuthenticationError, redis_errors.NoPermissionError)

Place = tuple[str, int]
_T = TypeVar("_T")


class Sentinels:
    """The sentinels of one store; safe to use from several threads."""

    __slots__ = ("_best", "_keywords", "_places", "_service", "_tls")

    def __init__(self, address: Address) -> None:
        """Ask those of an address."""
        self._places = address.places
        self._service = address.service
        self._tls = address.sentinel_tls
        self._best = address.places[0]
        self._keywords: dict[str, Any] = {
            **address.sentinel_login,
            **(address.sentinel_tls.keywords if address.sentinel_tls else {}),
            "protocol": 2,
            "socket_timeout": ASK_WITHIN_S,
            "socket_connect_timeout": ASK_WITHIN_S,
            "driver_info": None,
        }

    def order(self) -> Sequence[Place]:
        """All of them, the one that was right last first."""
        best = self._best
        return (best, *(one for one in self._places if one != best))

    def praise(self, place: Place) -> None:
        """Ask this one first from now on."""
        self._best = place

    async def ask(self, place: Place) -> Place:
        """The primary as one sentinel knows it.

        Raises:
            RedisError: it does not answer, or knows none.
            OSError: likewise.
        """
        kind = aioredis.Connection if self._tls is None else aioredis.SSLConnection
        host, port = place
        connection = kind(host=host, port=port, retry=Retry(NoBackoff(), 0), **self._keywords)
        try:
            with heeding_cancellation():
                await connection.connect()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                return self._read(await connection.read_response())
        except _REFUSED as error:
            raise _refusal(place, error) from error
        finally:
            await connection.disconnect(nowait=True)

    def ask_blocking(self, place: Place) -> Place:
        """The same for a thread."""
        kind = cast("Any", redis.Connection if self._tls is None else redis.SSLConnection)
        host, port = place
        connection = kind(host=host, port=port, retry=SyncRetry(NoBackoff(), 0), **self._keywords)
        try:
            connection.connect()
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            return self._read(connection.read_response())
        except _REFUSED as error:
            raise _refusal(place, error) from error
        finally:
            connection.disconnect()

    async def reach(self, attempt: Callable[[Place], Awaitable[_T]]) -> _T:
        """What an attempt gives with the first primary with which it succeeds.

        Raises:
            AuthenticationError: a sentinel or a primary refuses the login.
            ConnectionError: no sentinel names a primary with which it does.
            StoreRefused: as the attempt says.
            OtherHistory: likewise.
        """
        tried: set[Place] = set()
        reasons: list[str] = []
        for sentinel in self.order():
            try:
                place = await self.ask(sentinel)
                if place in tried:
                    continue
                tried.add(place)
                result = await attempt(place)
            except redis_errors.AuthenticationError:
                raise
            except OtherHistory:
                # The next attempt finds it known. To ask the others now, who may name the former
                # primary still, would be to change histories for ever.
                self.praise(sentinel)
                raise
            except (*_WRONG, StoreUnavailable) as error:
                reasons.append(_reason(sentinel, error))
            else:
                self.praise(sentinel)
                return result
        raise self.nobody(reasons)

    def nobody(self, reasons: Sequence[str]) -> redis_errors.ConnectionError:
        """The error to raise when each of them was asked in vain."""
        return redis_errors.ConnectionError(
            f"no sentinel knows a primary of {self._service!r} that serves: {'; '.join(reasons)}"
        )

    def _read(self, answer: Any) -> Place:
        if not answer:
            raise redis_errors.ConnectionError(f"it knows no service {self._service!r}")
        host, port = (part if isinstance(part, str) else part.decode() for part in answer)
        return host, int(port)


class PrimaryPool(aioredis.ConnectionPool):
    """Connections to the primary, whoever that is when each is made."""

    def __init__(self, sentinels: Sentinels, **keywords: Any) -> None:
        """Make connections with these keywords of redis-py's, but for their place."""
        # Redis-py leaves the keywords of this untyped.
        cast("Any", super()).__init__(**keywords)
        self._sentinels = sentinels

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Leave the connection as it is if it is alive, else connect it to the primary.

        Raises:
            AuthenticationError: the primary refuses the login.
            ConnectionError: no sentinel knows a primary that serves.
        """
        if connection.is_connected:
            if await _is_quiet(connection):
                return
            await connection.disconnect(nowait=True)
        target = cast("aioredis.Connection", connection)

        async def attempt(place: Place) -> None:
            target.host, target.port = place
            await target.connect()

        await self._sentinels.reach(attempt)


def connect_primary(sentinels: Sentinels, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """A blocking connection to the primary; raises as `PrimaryPool` does.

    Args:
        sentinels: whom to ask.
        make: makes a connection of redis-py's from the keywords of its place.
    """
    tried: set[Place] = set()
    reasons: list[str] = []
    for sentinel in sentinels.order():
        try:
            place = sentinels.ask_blocking(sentinel)
            if place in tried:
                continue
            tried.add(place)
            connection = make({"host": place[0], "port": place[1]})
            _connect(connection)
        except redis_errors.AuthenticationError:
            raise
        except _WRONG as error:
            reasons.append(_reason(sentinel, error))
        else:
            sentinels.praise(sentinel)
            return connection
    raise sentinels.nobody(reasons)


async def check_primary(connection: Any) -> None:
    """Refuse a server that is no primary; one that will not tell is believed.

    Args:
        connection: one of redis-py's, connected.

    Raises:
        ConnectionError: it is a replica.
    """
    await connection.send_command("ROLE")
    try:
        role = await connection.read_response()
    except redis_errors.ResponseError:
        return
    _check_role(role)


def _connect(connection: Any) -> None:
    """As `PrimaryPool` connects; a connection that leads to no primary is closed."""
    connection.connect()
    try:
        connection.send_command("ROLE")
        try:
            role = connection.read_response()
        except redis_errors.ResponseError:
            return
        _check_role(role)
    except _WRONG:
        connection.disconnect()
        raise


def _check_role(role: Any) -> None:
    if is_replica(role):
        raise redis_errors.ConnectionError(NO_PRIMARY)


def is_replica(role: Any) -> bool:
    """Whether an answer to ROLE says so; no answer does not."""
    return bool(role) and role[0] not in (b"master", "master")


async def _is_quiet(connection: AbstractConnection) -> bool:
    """Whether a connection is open, and nothing lies there that nobody asked for."""
    try:
        return not await connection.can_read()
    except _WRONG:
        return False


def _refusal(sentinel: Place, error: Exception) -> redis_errors.AuthenticationError:
    host, port = sentinel
    return redis_errors.AuthenticationError(
        f"sentinel {host}:{port}: {error}; its login is sentinel_username and sentinel_password"
    )


def _reason(sentinel: Place, error: Exception) -> str:
    host, port = sentinel
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else None
    return f"{host}:{port}: {cause or str(error) or type(error).__name__}"
