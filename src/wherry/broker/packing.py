"""Packing: redis-py's asyncio connections, with commands packed by hiredis.

Redis-py packs the commands of its blocking connections by hiredis, and those of its asyncio
connections in Python: with many arguments that costs more than all else that a commit needs.
And a connection that was lost says so by an error of redis-py's under every event loop. Only three
public methods are replaced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import hiredis
import redis.asyncio as aioredis
import redis.exceptions as redis_errors
from redis.asyncio.connection import (
    AbstractConnection,
    UnixDomainSocketConnection,
)
from redis.typing import EncodableT

# Its type says: a tuple of exactly one argument.
_pack = cast("Callable[[tuple[Any, ...]], bytes]", cast("Any", hiredis).pack_command)


def _pack_command(command: tuple[Any, ...]) -> list[bytes]:
    # Redis-py writes some commands of two words as one argument.
    name = command[0] if isinstance(command[0], str) else command[0].decode()
    return [_pack((*name.split(), *command[1:]))]


def _pack_commands(commands: Iterable[Iterable[Any]]) -> list[bytes]:
    return [b"".join(_pack(tuple(command)) for command in commands)]


async def _heed_loss(sending: Awaitable[None]) -> None:
    """Send; uvloop refuses to write to a connection that is gone with an error of its own."""
    try:
        await sending
    except RuntimeError as error:
        if "handler is closed" not in str(error):
            raise
        raise redis_errors.ConnectionError(f"the connection was lost: {error}") from error


class _Tcp(aioredis.Connection):
    def pack_command(self, *args: EncodableT) -> list[bytes]:
        return _pack_command(args)

    def pack_commands(self, commands: Iterable[Iterable[EncodableT]]) -> list[bytes]:
        return _pack_commands(commands)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        await _heed_loss(super().send_packed_command(command, check_health))


class _Tls(aioredis.SSLConnection):
    def pack_command(self, *args: EncodableT) -> list[bytes]:
        return _pack_command(args)

    def pack_commands(self, commands: Iterable[Iterable[EncodableT]]) -> list[bytes]:
        return _pack_commands(commands)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        await _heed_loss(super().send_packed_command(command, check_health))


class _Unix(UnixDomainSocketConnection):
    def pack_command(self, *args: EncodableT) -> list[bytes]:
        return _pack_command(args)

    def pack_commands(self, commands: Iterable[Iterable[EncodableT]]) -> list[bytes]:
        return _pack_commands(commands)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        await _heed_loss(super().send_packed_command(command, check_health))


_PACKED: dict[object, type[AbstractConnection]] = {
    aioredis.Connection: _Tcp,
    aioredis.SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


def async_pool(url: str, **keywords: Any) -> aioredis.ConnectionPool:
    """The connection pool of a URL; raises ValueError or TypeError as redis-py does."""
    # Redis-py leaves the keywords of this untyped.
    pool = cast("Any", aioredis.ConnectionPool).from_url(url, **keywords)
    pool.connection_class = _PACKED[pool.connection_class]
    return pool
