"""Commands look on the wire as redis-py itself writes them."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis
import redis.exceptions as redis_errors

from wherry.broker.packing import async_pool

COMMANDS = [
    ("PING",),
    ("CLIENT", "ID"),
    ("EVALSHA", "a" * 40, 2, "{w:1}:in", "{w:1}:lease", b"\x00\xff", "", -1, 1.5, "ü"),
    ("XADD", "k", "*", "m", b"x" * 100_000),
]


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h:1/0", "unix:///s"])
def test_commands_are_packed_as_redis_py_packs_them(url: str):
    ours = async_pool(url).make_connection()
    theirs = aioredis.ConnectionPool.from_url(url).make_connection()
    assert type(ours) is not type(theirs)
    assert isinstance(ours, type(theirs))
    for command in COMMANDS:
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
    assert b"".join(ours.pack_commands(COMMANDS)) == b"".join(theirs.pack_commands(COMMANDS))


def test_a_command_of_two_words_is_sent_as_two_arguments():
    packed = async_pool("unix:///s").make_connection().pack_command("CONFIG GET", "port")
    assert b"".join(packed).startswith(b"*3\r\n")


def test_an_argument_that_redis_does_not_know_is_refused():
    connection = async_pool("unix:///s").make_connection()
    with pytest.raises(TypeError):
        connection.pack_commands([("SET", "k", object())])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sending_on_a_lost_connection_is_a_connection_error(loop: str, redis_url: str):
    """The reset may be known before the command is sent: uvloop then has an error of its own."""
    factory = None if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def send_on_a_lost_connection() -> None:
        connection = async_pool(redis_url).make_connection()
        await connection.connect()

        async def ask() -> object:
            await connection.send_command("PING")
            return await connection.read_response()

        assert connection._writer is not None
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)
        with pytest.raises(redis_errors.ConnectionError):
            await ask()
        assert await ask() in ("PONG", b"PONG")  # on a new one
        await connection.disconnect()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(send_on_a_lost_connection())
