"""Connections: from a store's URL to links that send commands and return raw answers.

Redis-py is met here, and its errors in `wherry.broker.mapping`; nowhere else. It never
retries by itself, because what may be sent again is the caller's knowledge: a silent resend
loses the order of reads and doubles writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import fakeredis
import redis
import redis.asyncio as aioredis
import redis.exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from ..errors import ConfigError
from .connection import Endpoint
from .embedded import EmbeddedStore, default_directory, open_embedded
from .history import Past, read_history
from .link import Argument, Command, Link
from .mapping import map_error
from .memory import MemoryServer, memory_server
from .packing import async_pool, read_endpoint
from .passwords import hide_password
from .single import SingleLink

SCHEMES = ("redis", "rediss", "unix", "embedded", "memory")

_CONNECT_TIMEOUT_S = 5.0

# Redis-py leaves the keywords of these untyped.
_sync_pool = cast("Callable[..., redis.ConnectionPool]", cast("Any", redis.ConnectionPool).from_url)


@contextlib.contextmanager
def heeding_cancellation() -> Generator[None]:
    """Raise the cancellation that redis-py may lose, whatever its call returned or raised.

    It writes under `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that
    comes in the tick of its result (https://github.com/python/cpython/issues/86296). A task
    that is cancelled once and never again would run on for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


class PooledLink:
    """Implements `wherry.broker.link.Link`, with as many connections as there are calls."""

    __slots__ = ("_client", "_history", "_where", "client_id", "connects", "past")

    def __init__(self, client: aioredis.Redis, where: str) -> None:
        """Take over a client; its answers are no longer reshaped."""
        client.response_callbacks.clear()
        self._client = client
        self._where = where
        self.connects = 0
        self.client_id: int | None = None
        self.past: Past | None = None
        self._history: str | None = None

    async def greet(self, connection: Any) -> None:
        """Run by redis-py on each new connection: count it, ask for its number, and name it.

        Raises:
            ConnectionError: once for each other history; the call was meant for the one before.
        """
        await connection.on_connect()
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
            self.past.meet(self._history)
            if known not in (None, self._history):
                raise redis_errors.ConnectionError("Redis was restarted or replaced")

    async def call(self, *command: Argument) -> Any:
        """See `wherry.broker.link.Link`."""
        try:
            with heeding_cancellation():
                return await cast("Any", self._client).execute_command(*command)
        except (redis_errors.RedisError, OSError) as error:
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
        return [
            map_error(answer, self._where) if isinstance(answer, Exception) else answer
            for answer in answers
        ]

    async def subscribe(self, *channels: str) -> Subscription:
        """Listen to pub/sub channels on a connection of its own."""
        pubsub = cast("Any", self._client).pubsub()
        try:
            with heeding_cancellation():
                await pubsub.subscribe(*channels)
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error
        return Subscription(pubsub, self._where)

    async def aclose(self) -> None:
        """See `wherry.broker.link.Link`."""
        await self._client.aclose(close_connection_pool=True)


class Subscription:
    """One pub/sub subscription."""

    __slots__ = ("_pubsub", "_where")

    def __init__(self, pubsub: Any, where: str) -> None:
        """Take over a subscribed pubsub object."""
        self._pubsub = pubsub
        self._where = where

    async def next(self) -> tuple[str, bytes]:
        """Wait for the next message: its channel and what was published.

        Raises:
            StoreUnavailable: the connection broke; subscribe again.
        """
        try:
            while True:
                with heeding_cancellation():
                    message = await self._pubsub.get_message(
                        ignore_subscribe_messages=True, timeout=None
                    )
                if message is not None:
                    return message["channel"].decode(), message["data"]
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error

    async def aclose(self) -> None:
        """End the subscription."""
        await self._pubsub.aclose()


class SyncLink:
    """A link for the renewal thread: one blocking connection."""

    __slots__ = ("_client", "_where")

    def __init__(self, client: redis.Redis, where: str) -> None:
        """Take over a client."""
        cast("Any", client).response_callbacks.clear()
        self._client = client
        self._where = where

    def call(self, *command: Argument) -> Any:
        """Send one command and return its answer; raises as a `Link` does."""
        try:
            return cast("Any", self._client).execute_command(*command)
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._where) from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Store:
    """Where the data is. Cheap: connects only when a link is used.

    Attributes:
        where: the place, fit to be shown: no password.
        is_memory: whether it lives in this process only.
        unix_s: now, by this computer's clock, or by the store's own if it is in memory.
    """

    __slots__ = ("_embedded", "_memory", "_url", "is_memory", "unix_s", "where")

    def __init__(
        self,
        url: str,
        *,
        memory: MemoryServer | None = None,
        embedded: EmbeddedStore | None = None,
    ) -> None:
        """Use `open_store`; this only keeps what that has found."""
        self._url = url
        self._memory = memory
        self._embedded = embedded
        self.is_memory = memory is not None
        self.unix_s = time.time if memory is None else lambda: memory.unix_s()
        self.where = hide_password(url)

    def link(self, *, answer_timeout_s: float | None = 10.0) -> PooledLink:
        """A link with connections of its own, for one event loop.

        Args:
            answer_timeout_s: no answer for longer breaks the connection; for a blocking read
                it must be above the time it blocks.
        """
        greeter: list[PooledLink] = []

        async def greet(connection: Any) -> None:
            await greeter[0].greet(connection)

        if self._memory is not None:
            client: aioredis.Redis = fakeredis.FakeAsyncRedis(server=self._memory, protocol=2)
            client.connection_pool.connection_kwargs["redis_connect_func"] = greet
        else:
            pool = async_pool(
                self._url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=answer_timeout_s,
                socket_connect_timeout=_CONNECT_TIMEOUT_S,
                health_check_interval=0,
                redis_connect_func=greet,
            )
            client = aioredis.Redis.from_pool(pool)
        link = PooledLink(client, self.where)
        greeter.append(link)
        return link

    def single_link(self, *, answer_timeout_s: float | None = 10.0) -> Link:
        """The same for one call at a time, quicker: for a worker's reads and commits."""
        if self._memory is not None:
            return self.link(answer_timeout_s=answer_timeout_s)
        return SingleLink(
            self._endpoint,
            self.where,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            answer_timeout_s=answer_timeout_s,
        )

    async def _endpoint(self) -> Endpoint:
        return read_endpoint(self._url)

    def sync_link(self, *, answer_timeout_s: float = 5.0) -> SyncLink:
        """A blocking link with a connection of its own, for one thread."""
        if self._memory is not None:
            return SyncLink(fakeredis.FakeRedis(server=self._memory, protocol=2), self.where)
        pool = _sync_pool(
            self._url,
            protocol=2,
            retry=SyncRetry(NoBackoff(), 0),
            socket_timeout=answer_timeout_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            health_check_interval=0,
        )
        return SyncLink(redis.Redis.from_pool(pool), self.where)

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

    ``redis://``, ``rediss://`` and ``unix://`` connect later, at first use. ``memory://NAME`` is
    the same store for every caller in this process.

    Raises:
        ConfigError: not a URL that Wherry knows.
        StoreNotFound: no server binary for the embedded store.
        StoreRefused: the embedded store's directory belongs to somebody else.
        StoreUnavailable: the embedded server did not start.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = (
            f"did you mean {near[0]}://?"
            if near
            else "use " + ", ".join(f"{name}://" for name in SCHEMES)
        )
        raise ConfigError(f"store URL {hide_password(url)!r} is not one that Wherry knows; {hint}")
    if scheme == "memory":
        return Store(url, memory=memory_server(rest))
    if scheme == "embedded":
        directory = Path(unquote(rest)) if rest else default_directory(Path.cwd())
        embedded = open_embedded(directory, binary=server_binary)
        store = Store(f"unix://{embedded.socket_path}", embedded=embedded)
        store.where = f"embedded://{embedded.directory}"
        return store
    try:
        async_pool(url)
    except (ValueError, TypeError) as error:
        # Its text may hold a part of the password.
        why = "quote special letters of the password, %2F for /" if "@" in url else str(error)
        raise ConfigError(f"store URL {hide_password(url)!r} is malformed: {why}") from None
    return Store(url)
