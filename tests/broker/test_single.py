"""The worker's own connection: what it answers, and what it does when something breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.client.owner import until
from tests.proxy import proxy
from tests.servers import Server
from tests.servers_plugin import StartServer
from wherry.broker.connect import open_store
from wherry.broker.history import Past
from wherry.broker.link import Link
from wherry.broker.single import SingleLink
from wherry.errors import StoreError, StoreRefused, StoreUnavailable


@asynccontextmanager
async def single(url: str, answer_timeout_s: float | None = 10.0) -> AsyncGenerator[SingleLink]:
    link = open_store(url).single_link(answer_timeout_s=answer_timeout_s)
    assert isinstance(link, SingleLink)
    try:
        yield link
    finally:
        await link.aclose()


async def test_answers_come_in_the_order_of_the_commands_errors_among_them(redis_url: str):
    async with single(redis_url) as link:
        await link.call("SET", "text", "no number")
        first, second, third = await link.calls([("INCR", "n"), ("INCR", "text"), ("GET", "n")])
        assert (first, third) == (1, b"1")
        assert isinstance(second, StoreError)
        assert "not an integer" in str(second)
        with pytest.raises(StoreError, match="not an integer"):
            await link.call("INCR", "text")
        assert link.connects == 1, "an error answer breaks nothing"
        assert isinstance(link.client_id, int)
        assert b"name=wherry" in await link.call("CLIENT", "INFO")


@pytest.mark.parametrize("size", [0, 2**18 - 1, 2**18, 3 * 2**20])
async def test_answers_of_any_size_arrive_whole(redis_url: str, size: int):
    value = bytes(number % 251 for number in range(size))
    async with single(redis_url) as link:
        await link.call("SET", "k", value)
        assert await link.calls([("GET", "k"), ("PING",)]) == [value, b"PONG"]


async def test_cancelled_call_closes_its_connection(redis_url: str):
    """Or its answer, which comes later, would be taken for that of the next call."""
    async with single(redis_url) as link:
        await link.call("PING")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await link.call("XREAD", "BLOCK", 60_000, "STREAMS", "s", "$")
        assert await link.call("ECHO", "next") == b"next"
        assert link.connects == 2


async def test_call_without_an_answer_is_given_up_and_its_connection_closed(redis_url: str):
    async with single(redis_url, answer_timeout_s=0.1) as link:
        await link.call("PING")
        with pytest.raises(StoreUnavailable, match=r"no answer for 0\.1 s"):
            await link.call("XREAD", "BLOCK", 60_000, "STREAMS", "s", "$")
        assert await link.call("ECHO", "next") == b"next"
        assert link.connects == 2


async def test_connection_that_the_server_closes_is_made_anew(redis_url: str):
    async with single(redis_url) as link, single(redis_url) as other:
        await link.call("PING")
        waiting = asyncio.create_task(link.call("XREAD", "BLOCK", 60_000, "STREAMS", "s", "$"))
        await asyncio.sleep(0)
        await other.call("CLIENT", "KILL", "ID", link.client_id or 0)
        with pytest.raises(StoreUnavailable):
            await waiting
        assert await link.call("ECHO", "next") == b"next"
        assert link.connects == 2


async def test_lost_answer_is_not_asked_for_again(redis_url: str):
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    async with proxy(port) as between, single(between.url) as link, single(redis_url) as other:
        await link.call("PING")
        between.lose_answers = 1
        with pytest.raises(StoreUnavailable):
            await link.call("INCR", "n")
        assert await other.call("GET", "n") == b"1"
        assert await link.call("GET", "n") == b"1"


async def test_close_fails_a_call_under_way(redis_url: str):
    async with single(redis_url) as link:
        await link.call("PING")
        waiting = asyncio.create_task(link.call("XREAD", "BLOCK", 60_000, "STREAMS", "s", "$"))
        await asyncio.sleep(0)
        await link.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting


async def test_close_that_is_cancelled_leaves_nothing_behind(redis_url: str):
    loop = asyncio.get_running_loop()
    said: list[object] = []
    loop.set_exception_handler(lambda _, context: said.append(context))
    async with single(redis_url) as link:
        await link.call("PING")
        connection = link._connection
        assert connection is not None
        closing = asyncio.create_task(link.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await connection.wait_closed()
    assert said == []


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"*1\r\n"])
async def test_what_is_no_redis_is_told(said: bytes):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, single(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as link:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await link.call("PING")
        assert link.connects == 0


async def test_nobody_listens():
    async with single("redis://127.0.0.1:1") as link:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
            await link.call("PING")


async def test_login_and_database(start_server: Any):
    server: Server = start_server(password="pw:/")
    host = server.url.rpartition("@")[2].partition("/")[0]
    async with single(f"redis://:pw%3A%2F@{host}/3") as link:
        await link.call("SET", "k", "v")
        assert b" db=3 " in await link.call("CLIENT", "INFO")
    for login in ("", ":wrong@", "nobody:pw@"):
        async with single(f"redis://{login}{host}") as link:
            with pytest.raises(StoreRefused, match="login"):
                await link.call("GET", "k")


async def test_user_without_the_right_to_the_greeting_is_served(start_server: Any):
    server: Server = start_server()
    rights = ("on", ">pw", "~*", "&*", "+@all", "-client", "-info")
    server.command("ACL", "SETUSER", "worker", *rights)
    async with single(server.url.replace("redis://", "redis://worker:pw@")) as link:
        link.past = Past()
        link.past.on_other = lambda: pytest.fail("nothing is known of the history")
        assert await link.call("ECHO", "served") == b"served"
        assert link.client_id is None
        with pytest.raises(StoreRefused, match="ACL SETUSER"):
            await link.call("INFO")


async def test_other_history_is_told_before_anything_is_sent_to_it(start_server: Any):
    server: Server = start_server()
    async with single(server.url) as link, single(server.url) as other:
        past = link.past = other.past = Past()
        told: list[str] = []
        past.on_other = lambda: told.append("other")
        await link.call("PING")
        await other.call("PING")
        await asyncio.to_thread(server.restart)
        for one in (link, other):
            with pytest.raises(StoreUnavailable, match="restarted or replaced"):
                await _insist(one)
        assert told == ["other"], "told once, whichever link meets it first"
        assert await link.call("EXISTS", "calls") == 0
        assert await other.call("PING") == b"PONG"


async def _insist(link: Link) -> None:
    """Call, and once more if only now the connection is seen to have gone."""
    try:
        await link.call("INCR", "calls")
    except StoreUnavailable as error:
        if "restarted" in str(error):
            raise
        await link.call("INCR", "calls")


async def test_store_in_memory_has_links_of_one_kind():
    store = open_store("memory://single")
    link = store.single_link()
    try:
        assert type(link) is type(store.link())
        assert await link.call("PING") in (b"PONG", True)
    finally:
        await link.aclose()


@asynccontextmanager
async def saying(answer: Callable[[bytes], bytes], pause_s: float = 0.0) -> AsyncGenerator[str]:
    """A server that answers what is asked, given all at once, byte by byte if there is a pause."""

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while asked := await reader.read(65_536):
                said = answer(asked)
                if not pause_s:
                    writer.write(said)
                    continue
                for place in range(len(said)):
                    writer.write(said[place : place + 1])
                    await writer.drain()
                    await asyncio.sleep(pause_s)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for task in serving:  # whoever asked has closed its connection
        assert task is not None
        await task


async def test_answer_that_keeps_coming_is_waited_for():
    """Or a large read over a slow network would be begun again and again, and never end."""

    def answer(asked: bytes) -> bytes:
        return b":1\r\n+OK\r\n" if b"SETNAME" in asked else b"$40\r\n" + 40 * b"x" + b"\r\n"

    async with saying(answer, 0.02) as url, single(url, answer_timeout_s=0.3) as link:
        assert await link.call("GET", "k") == 40 * b"x"
        assert link.connects == 1


async def test_database_that_is_not_there_is_waited_for():
    """A committer takes any other error for the end; redis-py says the same of its connections."""

    def answer(asked: bytes) -> bytes:
        return b"-ERR DB index is out of range\r\n:1\r\n+OK\r\n"

    async with saying(answer) as url, single(f"{url}/9") as link:
        with pytest.raises(StoreUnavailable, match="out of range"):
            await link.call("PING")


@asynccontextmanager
async def sentinels(*named: int) -> AsyncGenerator[tuple[str, list[int]]]:
    """As many sentinels as ports are given; each names the port that then stands in its place."""
    ports = list(named)

    def naming(place: int) -> Callable[[bytes], bytes]:
        def answer(asked: bytes) -> bytes:
            if b"GET-MASTER" not in asked:
                return b"+OK\r\n" * asked.count(b"*")
            port = str(ports[place])
            return f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode()

        return answer

    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(saying(naming(n))) for n in range(len(ports))]
        places = ",".join(url.removeprefix("redis://") for url in urls)
        yield f"redis+sentinel://{places}/main", ports


async def test_sentinels_that_disagree_cost_one_call(start_server: StartServer):
    """One of them names the former primary still, which is alive, and no replica."""
    old, new = start_server(), start_server()
    others: list[str] = []
    async with sentinels(old.port, old.port) as (url, ports), single(url) as link:
        past = link.past = Past()
        past.on_other, past.links = lambda: others.append("other"), (link,)
        await link.call("SET", "which", "old")
        ports[0] = new.port
        await link.reconnect()
        with pytest.raises(StoreUnavailable, match="restarted or replaced"):
            await link.call("SET", "which", "new")
        assert await link.call("GET", "which") is None
        assert others == ["other"]


async def test_cancellation_while_sentinels_are_asked_is_heeded(start_server: StartServer):
    """Redis-py asks them, and its `asyncio.wait_for` forgets one that comes in its last tick."""
    async with sentinels(start_server().port) as (url, _):
        for ticks in range(40):
            async with single(url) as link:
                task = asyncio.create_task(link.call("PING"))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                is_late = task.done()
                task.cancel()
                await asyncio.wait([task])
                assert is_late or task.cancelled(), f"after {ticks} ticks"


@asynccontextmanager
async def noticing(url: str) -> AsyncGenerator[tuple[Link, list[Any]]]:
    """A link whose server gives notice, and what it has said."""
    said: list[Any] = []
    link = open_store(url).noticing_link(said.append, answer_timeout_s=5.0)
    assert link is not None
    try:
        yield link, said
    finally:
        await link.aclose()


async def test_server_gives_notice_once_of_each_key_that_was_read(any_server: Server):
    async with noticing(any_server.url) as (link, said), single(any_server.url) as other:
        assert await link.calls([("GET", "a"), ("GET", "b")]) == [None, None]
        await other.calls([("SET", "c", 1), ("SET", "a", 1), ("SET", "a", 2)])
        await link.call("GET", "b")
        assert said == [[b"invalidate", [b"a"]]]
        await other.call("SET", "b", 1)
        await until(lambda: len(said) == 2)
        await other.call("FLUSHALL")
        await until(lambda: len(said) == 3)
        assert said[1:] == [[b"invalidate", [b"b"]], [b"invalidate", None]]


async def test_notice_is_kept_apart_from_answers(redis_url: str):
    """It comes between answers, and between the pieces of a large one."""
    large = b"x" * 2**21
    async with noticing(redis_url) as (link, said), single(redis_url) as other:
        await link.call("SET", "large", large)
        writing = asyncio.create_task(_write(other, 300))
        for _ in range(30):
            before = await link.calls([("GET", "n"), ("GET", "large")])
            kept = list(before)
            assert before[1] == large
            await asyncio.sleep(0.001)
            assert before == kept, "what comes later is not added to answers that were given"
        await writing
        assert said
        assert all(one == [b"invalidate", [b"n"]] for one in said)


async def _write(link: Link, times: int) -> None:
    for number in range(times):
        await link.call("SET", "n", number)


async def test_end_of_the_connection_is_told(redis_url: str):
    async with noticing(redis_url) as (link, said), single(redis_url) as other:
        await link.call("GET", "a")
        assert link.client_id is not None
        await other.call("CLIENT", "KILL", "ID", link.client_id)
        await until(lambda: said == [None])


async def test_server_that_gives_no_notice_says_so(start_server: StartServer):
    server = start_server(args=("--rename-command", "HELLO", ""))
    async with noticing(server.url) as (link, _):
        with pytest.raises(StoreError, match="unknown command"):
            await link.call("GET", "a")
    server = start_server()
    server.command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    async with noticing(server.url.replace("redis://", "redis://deaf:pw@")) as (link, _):
        with pytest.raises(StoreRefused, match=r"client\|tracking"):
            await link.call("GET", "a")
