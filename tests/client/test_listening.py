"""Followers behind a server that gives notice of what has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgpack

from tests.client.owner import Owner, add_reply, owner, until
from tests.proxy import is_listening, proxy
from tests.servers import Server
from wherry.broker.single import SingleLink
from wherry.client import Client
from wherry.client.listening import Listener
from wherry.config import Config
from wherry.model import Reply, Restarted

Events = AsyncGenerator[Reply | Restarted | None]
PATIENT = Config(block_s=30.0, socket_timeout_s=40.0)
"""What comes sooner has come by notice."""


async def numbers(events: Events, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            event = await anext(events)
            assert isinstance(event, Reply)
            assert event.message is not None
            found.append(event.message["number"])
    return found


async def reply(worker: Owner, scope: str, *numbers: int) -> None:
    key = worker.replies_key(scope)
    for number in numbers:
        await add_reply(worker.link, key, number)


async def push_at_once(worker: Owner, scope: str, count: int) -> None:
    key, fields = worker.replies_key(scope), ("i", "1-0", "s", scope)
    packed = [msgpack.packb({"type": "reply", "number": number}) for number in range(count)]
    commands = [
        ("XADD", key, "*", "m", one, "n", number, *fields) for number, one in enumerate(packed)
    ]
    await worker.link.calls([("MULTI",), *commands, ("EXEC",)])


def listener_of(client: Client) -> Listener:
    (group,) = client._followers._groups
    assert isinstance(group.reader, Listener)
    return group.reader


def link_of(client: Client) -> SingleLink:
    link = listener_of(client)._link
    assert link is not None
    return link


async def heeds(client: Client, count: int) -> None:
    """Wait until notice will come of so many streams."""
    groups = client._followers._groups
    await until(lambda: len(groups) == 1 and listener_of(client).heeded == count)


@asynccontextmanager
async def next_of(
    client: Client, worker: Owner, *scopes: str
) -> AsyncGenerator[list[asyncio.Task[list[int]]]]:
    """Follow scopes, each of which has a reply that is taken; the tasks wait for the next one."""
    followers: list[Events] = []
    for scope in scopes:
        await reply(worker, scope, 0)
        followers.append(client.replies(scope, follow=True))
        assert await numbers(followers[-1], 1) == [0]
    coming = [asyncio.create_task(numbers(one, 1)) for one in followers]
    try:
        await heeds(client, len(scopes))
        yield coming
    finally:
        for one in coming:
            one.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for one in followers:
            await one.aclose()


async def received_bytes(worker: Owner) -> int:
    """By the server, over all connections."""
    text: str = (await worker.link.call("INFO", "stats")).decode()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["total_net_input_bytes"])


async def test_only_what_has_changed_is_read(redis_url: str):
    scopes = [f"s{number}" for number in range(300)]
    async with (
        Client(redis_url, config=PATIENT) as client,
        owner(redis_url) as worker,
        next_of(client, worker, *scopes) as coming,
    ):
        before = await received_bytes(worker)
        for number in range(0, 300, 30):
            await reply(worker, scopes[number], number)
            assert await coming[number] == [number]
        spent = await received_bytes(worker) - before
        assert spent < 10 * 300 * 20, "ten reads of all would have more than that in ids alone"


async def test_more_than_one_read_brings_is_read_to_its_end(redis_url: str):
    async with (
        Client(redis_url, config=PATIENT) as client,
        owner(redis_url) as worker,
        next_of(client, worker, "other"),
    ):
        await reply(worker, "scope", 250)
        events = client.replies("scope", follow=True)
        assert await numbers(events, 1) == [250]
        coming = asyncio.create_task(numbers(events, 250))
        await heeds(client, 2)
        await push_at_once(worker, "scope", 250)
        assert await coming == list(range(250))
        await events.aclose()


async def test_who_comes_back_to_a_stream_misses_nothing(redis_url: str):
    """Notice that came when nobody followed the stream does not come again."""
    async with (
        Client(redis_url, config=PATIENT) as client,
        owner(redis_url) as worker,
        next_of(client, worker, "other"),
    ):
        for number in range(10):
            await reply(worker, "scope", 2 * number)
            events = client.replies("scope", follow=True)
            assert await numbers(events, 2 * number + 1) == list(range(2 * number + 1))
            coming = asyncio.create_task(numbers(events, 1))
            if number % 2:
                await heeds(client, 2)
            await reply(worker, "scope", 2 * number + 1)
            assert await coming == [2 * number + 1]
            await events.aclose()


async def test_connection_that_has_gone_silent_loses_nothing(redis_server: Server):
    config = Config(block_s=0.3, socket_timeout_s=0.6)
    async with (
        proxy(redis_server.port) as between,
        owner(redis_server.url) as worker,
        Client(between.url, config=config) as client,
        next_of(client, worker, "scope") as (coming,),
    ):
        between.swallows_answers = is_listening
        await reply(worker, "scope", 1)
        await until(lambda: between.is_swallowing)
        between.heal()
        assert await coming == [1]


async def test_without_notice_all_are_read_from_time_to_time(redis_url: str):
    """Also while there is always something else to be done."""
    config = Config(block_s=0.2, socket_timeout_s=10.0)
    async with (
        Client(redis_url, config=config) as client,
        owner(redis_url) as worker,
        next_of(client, worker, "scope", "another") as coming,
    ):
        connection = await link_of(client).connected()
        connection.told = lambda said: None  # noqa: ARG005 - of what it takes
        await reply(worker, "scope", 1)
        assert await coming[0] == [1]
        await reply(worker, "another", 2)
        while not coming[1].done():
            listener_of(client).changed()
            await asyncio.sleep(0)
        assert coming[1].result() == [2]


async def test_deleting_everything_is_noticed(redis_url: str):
    async with Client(redis_url, config=PATIENT) as client, owner(redis_url) as worker:
        events = client.replies("scope", follow=True)
        coming = asyncio.create_task(numbers(events, 1))
        await heeds(client, 1)
        await worker.link.call("FLUSHDB")
        await add_reply(worker.link, worker.replies_key("scope"), 5)
        assert await coming == [5]
        await events.aclose()
