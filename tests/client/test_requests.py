from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.client.owner import Owner, commands_sent, cost_of_reading, heard, owner, say, until
from tests.proxy import proxy
from tests.servers import Server
from tests.servers_plugin import StartServer
from wherry.client import Client
from wherry.client.watching import Watcher
from wherry.config import Config
from wherry.errors import (
    ClientClosed,
    MessageError,
    MessageFailed,
    ReaderTooSlow,
    RequestTimeout,
    StoreUnavailable,
)
from wherry.model import Reply, Restarted, partition_of


def numbers(events: list[Reply | Restarted]) -> list[object]:
    return [
        "restarted" if isinstance(event, Restarted) else (event.message or {}).get("number")
        for event in events
    ]


def is_reading(client: Client) -> bool:
    shelf = client._inbox._shelves.get(0)
    return shelf is not None and shelf.watcher._read is not None


async def test_request_returns_the_replies_in_order(url: str):
    async with Client(url) as client, owner(url) as worker, asyncio.TaskGroup() as group:
        asking = group.create_task(client.request("scope", say(0), channel="route"))
        await worker.answer("scope", *heard(1, 2, 3))
        assert await asking == heard(1, 2, 3)


async def test_request_without_replies_ends(url: str):
    async with Client(url) as client, owner(url) as worker, asyncio.TaskGroup() as group:
        asking = group.create_task(client.request("scope", say(0)))
        await worker.answer("scope")
        assert await asking == []


async def test_thousands_of_requests_share_one_reader(redis_url: str):
    async with owner(redis_url, partitions=4) as worker, Client(redis_url) as client:
        await client.send("s0", say(-1))
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(client.request(f"s{n}", say(n))) for n in range(2_000)]
            answered = 0
            while answered < 2_001:
                for partition in range(4):
                    scope = next(
                        f"s{n}" for n in range(99) if partition_of(f"s{n}", 4) == partition
                    )
                    if not await worker.link.call(
                        "XLEN", worker.keys.entries(worker.partition(scope))
                    ):
                        continue
                    for entry in await worker.entries(scope):
                        await worker.commit(entry, *heard(entry.message["number"]))
                        answered += 1
            connections = (await worker.link.call("CLIENT", "LIST")).decode()
        assert [task.result() for task in asking] == [heard(n) for n in range(2_000)]
        # One for commands, one for reading, and the owner's own; a few for unblocking.
        assert len(connections.splitlines()) <= 8
        await until(lambda: client._inbox._shelves[0].watcher._task is None)
        for key in await inbox_keys(worker):
            assert await worker.link.call("XLEN", key) == 0


async def inbox_keys(worker: Owner) -> list[bytes]:
    return await worker.link.call("KEYS", "*:out:~*")


async def test_what_was_taken_is_deleted(url: str):
    async with Client(url) as client, owner(url) as worker:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(client.request("scope", say(0)))
            await worker.entries("scope")
            asking = group.create_task(client.request("scope", say(1)))
            first, second = await worker.entries("scope", 2)
            await worker.commit(second, *heard(1))
            await asking

            async def is_empty() -> bool:
                key = worker.keys.inbox(worker.partition("scope"), client._inbox.name)
                return await worker.link.call("XLEN", key) == 0

            await until(is_empty)
            await worker.commit(first, *heard(0))
            assert await waiting == heard(0)
        await until(lambda: no_inbox(worker, client))


async def no_inbox(worker: Owner, client: Client) -> bool:
    key = worker.keys.inbox(worker.partition("scope"), client._inbox.name)
    return await worker.link.call("XLEN", key) == 0


async def test_closing_deletes_the_inbox(url: str):
    async with owner(url) as worker:
        async with Client(url) as client:
            with pytest.raises(RequestTimeout):
                await client.request("scope", say(0), timeout_s=0.05)
            await worker.answer("scope", *heard(0))
            assert await inbox_keys(worker) != []
        assert await inbox_keys(worker) == []


async def test_timeout_names_the_entry_and_late_replies_do_no_harm(url: str):
    async with Client(url) as client, owner(url) as worker:
        async with asyncio.TaskGroup() as group:  # connecting is not what this is about
            group.create_task(client.request("scope", say(2)))
            await worker.answer("scope", *heard(2))
        # Within the limit it must have been sent, on a busy machine, too.
        with pytest.raises(RequestTimeout, match=r"within 0\.5 s") as late:
            await client.request("scope", say(0), timeout_s=0.5)
        (entry,) = await worker.entries("scope")
        assert late.value.entry_id == entry.id
        await worker.commit(entry, *heard(0))
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.request("scope", say(1)))
            await worker.answer("scope", *heard(1))
        assert asking.result() == heard(1)


async def test_timeout_of_the_sending(start_server: StartServer):
    server = start_server()
    async with Client(server.url) as client:
        await client.send("scope", say(0))
        server.pause()
        with pytest.raises(RequestTimeout, match="not sent"):
            await client.request("scope", say(1), timeout_s=0.05)
        server.resume()


async def test_timeout_of_the_caller_is_the_callers(url: str):
    async with Client(url) as client:
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.05):
                await client.request("scope", say(0), timeout_s=30)
        assert not isinstance(late.value, RequestTimeout)


async def test_buried_message_fails_its_request(url: str):
    async with Client(url) as client, owner(url) as worker:
        asking = asyncio.create_task(client.request("scope", say(0)))
        (entry,) = await worker.entries("scope")
        await worker.bury(entry, "ValueError: no")
        with pytest.raises(MessageFailed, match="ValueError: no") as failed:
            await asking
        assert failed.value.entry_id == entry.id


async def test_stream_yields_replies_as_they_come(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.request_stream("scope", say(0))
        first = asyncio.create_task(anext(events))
        (entry,) = await worker.entries("scope")
        assert entry.extras.mark == 2
        await worker.emit(entry, "scope", *heard(0))
        reply = await first
        assert isinstance(reply, Reply)
        assert (reply.message, reply.cause) == (heard(0)[0], entry.id)
        await worker.commit(entry, *heard(1), first=1)
        assert numbers([event async for event in events]) == [1]


async def test_stream_says_when_the_answer_begins_anew(url: str):
    async with Client(url) as client, owner(url) as worker:

        async def read() -> list[Reply | Restarted]:
            return [event async for event in client.request_stream("scope", say(0))]

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            asking = group.create_task(client.request("scope", say(1)))
            for entry in await worker.entries("scope", 2):
                await worker.emit(entry, "scope", *heard(7, 8))
                await worker.take_over("scope")
                await worker.emit(entry, "scope", *heard(0))
                await worker.commit(entry, *heard(1), first=1)
        assert numbers(reading.result()) == [7, 8, "restarted", 0, 1]
        assert asking.result() == heard(0, 1)


async def test_silence_ends_a_stream(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.request_stream("scope", say(0), timeout_s=0.2)
        first = asyncio.create_task(anext(events))
        (entry,) = await worker.entries("scope")
        await worker.emit(entry, "scope", *heard(0))
        await first
        with pytest.raises(RequestTimeout, match=r"within 0\.2 s") as late:
            await anext(events)
        assert late.value.entry_id == entry.id


async def test_stream_time_limit_does_not_run_while_the_caller_works(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.request_stream("scope", say(0), timeout_s=0.2)
        first = asyncio.create_task(anext(events))
        (entry,) = await worker.entries("scope")
        await worker.emit(entry, "scope", *heard(0))
        await first
        await worker.commit(entry, *heard(1), first=1)
        await asyncio.sleep(0.3)  # the caller is busy for longer than the limit
        assert numbers([event async for event in events]) == [1]


async def test_abandoned_stream_is_forgotten(url: str):
    async with Client(url) as client, owner(url) as worker:
        events = client.request_stream("scope", say(0))
        first = asyncio.create_task(anext(events))
        (entry,) = await worker.entries("scope")
        await worker.emit(entry, "scope", *heard(0))
        await first
        await events.aclose()
        assert not any(place.is_watched for place, _ in client._inbox._places.values())
        await until(lambda: client._inbox._shelves[0].watcher._task is None)


async def test_reader_that_is_too_slow_is_told(url: str):
    config = Config(in_flight=10, in_flight_per_partition=10)
    async with Client(url, config=config) as client, owner(url) as worker:
        events = client.request_stream("scope", say(0))
        first = asyncio.create_task(anext(events))
        (entry,) = await worker.entries("scope")
        await worker.emit(entry, "scope", *heard(0))
        await first
        for number in range(1, 15):
            await worker.emit(entry, "scope", *heard(number), first=number)
        await until(lambda: no_inbox(worker, client))
        got: list[Reply | Restarted] = []
        for _ in range(10):
            got.append(await anext(events))
        assert numbers(got) == list(range(1, 11))
        with pytest.raises(ReaderTooSlow, match="10 replies"):
            await anext(events)


async def test_same_message_id_gives_the_same_answer(url: str):
    """Also in another client, and long after the first answer was given."""
    async with Client(url) as client, Client(url) as other, owner(url) as worker:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.request("scope", say(0), message_id="m"))
            await worker.entries("scope")
            second = group.create_task(other.request("scope", say(0), message_id="m"))
            await until(lambda: len(other._followers._tails) == 1)
            await worker.answer("scope", *heard(1, 2))
        assert first.result() == second.result() == heard(1, 2)
        assert await client.request("scope", say(0), message_id="m") == heard(1, 2)
        events = [e async for e in other.request_stream("scope", say(0), message_id="m")]
        assert numbers(events) == [1, 2]


async def test_reply_that_is_written_before_its_sending_is_acknowledged(
    start_server: StartServer,
):
    """Another request is read meanwhile, so that the reply comes while its cause is unknown."""
    server = start_server()
    async with Client(server.url) as client, owner(server.url) as worker:
        async with asyncio.TaskGroup() as group:
            other = group.create_task(client.request("scope", say(0)))
            (first,) = await worker.entries("scope")
            gate = asyncio.Event()
            sender_send = client._sender.send

            async def slow_send(entry: Any) -> Any:
                sent = await sender_send(entry)
                await gate.wait()
                return sent

            client._inbox._sender = SlowSender(slow_send)  # pyright: ignore[reportAttributeAccessIssue]
            asking = group.create_task(client.request("scope", say(1)))
            _, second = await worker.entries("scope", 2)
            await worker.commit(second, *heard(1))
            await until(lambda: no_inbox(worker, client))
            gate.set()
            assert await asking == heard(1)
            await worker.commit(first, *heard(0))
        assert other.result() == heard(0)
        assert client._inbox._early._replies == {}


class SlowSender:
    """A sender whose caller learns of the sending late."""

    def __init__(self, send: Any) -> None:
        self.send = send


async def test_requests_outlast_a_lost_connection(redis_server: Server):
    async with Client(redis_server.url) as client, owner(redis_server.url) as worker:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.request("scope", say(0)))
            (entry,) = await worker.entries("scope")
            await until(lambda: is_reading(client))
            await worker.link.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await worker.commit(entry, *heard(0))
        assert asking.result() == heard(0)


async def test_requests_outlast_a_restart_of_the_server(start_server: StartServer):
    server = start_server(append_only=True)
    async with Client(server.url) as client:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.request("scope", say(0)))
            async with owner(server.url) as worker:
                await worker.entries("scope")
            server.restart()
            async with owner(server.url) as worker:
                await worker.answer("scope", *heard(0))
        assert asking.result() == heard(0)


async def blocks(worker: Owner) -> bool:
    return "flags=b" in (await worker.link.call("CLIENT", "LIST")).decode()


async def test_new_partition_is_watched_at_once(redis_url: str):
    """The blocking read of 30 s is ended, not waited for."""
    config = Config(block_s=30.0, socket_timeout_s=40.0)
    async with Client(redis_url, config=config) as client, owner(redis_url) as worker:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.request("a", say(0)))
            (entry,) = await worker.entries("a")
            await until(lambda: blocks(worker))
            for number, scope in enumerate("bcdef"):
                began_s = time.monotonic()
                asking = group.create_task(client.request(scope, say(number)))
                await worker.answer(scope, *heard(number))
                assert await asking == heard(number)
                assert time.monotonic() - began_s < 1.0
            await worker.commit(entry, *heard(9))
        assert first.result() == heard(9)
        assert not await blocks(worker)


async def test_without_the_right_to_unblock_the_connection_is_closed(start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-client|unblock")
    config = Config(block_s=30.0, socket_timeout_s=40.0)
    url = server.url.replace("redis://", "redis://weak:pw@")
    async with Client(url, config=config) as client, owner(server.url) as worker:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            first = group.create_task(client.request("a", say(0)))
            (entry,) = await worker.entries("a")
            await until(lambda: blocks(worker))
            second = group.create_task(client.request("b", say(1)))
            await worker.answer("b", *heard(1))
            assert await second == heard(1)
            await worker.commit(entry, *heard(0))
        assert first.result() == heard(0)
    async with owner(server.url) as worker:
        assert not await blocks(worker)


async def test_nothing_is_read_when_nothing_is_awaited(redis_url: str):
    async with Client(redis_url) as client, owner(redis_url) as worker:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.request("scope", say(0)))
            await worker.answer("scope", *heard(0))
        watcher: Watcher = client._inbox._shelves[0].watcher
        await until(lambda: watcher._task is None)
        await worker.link.call("CONFIG", "RESETSTAT")
        await client.send("scope", say(1))
        assert "xread" not in await commands_sent(worker.link)


async def test_idle_requests_cost_one_read_at_a_time(redis_url: str):
    quick = Config(block_s=0.05)
    async with Client(redis_url, config=quick) as client, owner(redis_url) as worker:
        asking = [asyncio.create_task(client.request(f"s{n}", say(n))) for n in range(100)]
        await until(lambda: sum(len(p.waiting) for p, _ in client._inbox._places.values()) == 100)
        watcher = client._inbox._shelves[0].watcher
        await until(lambda: watcher._read is not None and watcher._waking is None)
        assert sum((await cost_of_reading(worker.link, 10)).values()) <= 2
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_closing_ends_requests(url: str):
    client = Client(url)
    asking = asyncio.create_task(client.request("scope", say(0)))
    await until(lambda: any(p.waiting for p, _ in client._inbox._places.values()))
    await client.aclose()
    with pytest.raises(ClientClosed):
        await asking


async def test_request_to_a_store_that_is_not_there():
    async with Client("redis://127.0.0.1:1") as client:
        with pytest.raises(StoreUnavailable):
            await client.request("scope", say(0))
        with pytest.raises(MessageError):
            await client.request("", say(0))


async def test_what_is_no_reply_is_passed_over(redis_url: str):
    async with Client(redis_url) as client, owner(redis_url) as worker:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.request("scope", say(0)))
            (entry,) = await worker.entries("scope")
            key = worker.keys.inbox(worker.partition("scope"), client._inbox.name)
            await worker.link.call("XADD", key, "*", "m", b"\xc1", "i", entry.id, "n", "0")
            await worker.link.call("XADD", key, "*", "n", "no number")
            await worker.commit(entry, *heard(0))
        assert asking.result() == heard(0)


async def test_inbox_outlives_its_time_while_somebody_waits(redis_url: str):
    """A worker's short TTL is lengthened with the next read."""
    config = Config(reply_ttl_s=600.0)
    async with Client(redis_url, config=config) as client, owner(redis_url) as worker:
        events = client.request_stream("scope", say(0))
        first = asyncio.create_task(anext(events))
        (entry,) = await worker.entries("scope")
        key = worker.keys.inbox(worker.partition("scope"), client._inbox.name)
        worker.retention = replace(worker.retention, reply_ttl_ms=60_000)
        await worker.emit(entry, "scope", *heard(0))
        await first
        await worker.emit(entry, "scope", *heard(1), first=1)
        await anext(events)

        async def is_extended() -> bool:
            # A read that began before the worker's last write came too early.
            client._inbox._places[key][0].extended_at_s = float("-inf")
            return await worker.link.call("PTTL", key) > 60_000

        await until(is_extended)
        await events.aclose()


async def test_request_whose_sending_is_not_acknowledged_is_answered_once(redis_server: Server):
    """Sent again by its message id it is a second sending; the answer is found all the same."""
    async with proxy(redis_server.port) as way, Client(way.url) as client:
        await client.send("scope", say(9))
        async with owner(redis_server.url) as worker, asyncio.TaskGroup() as group:
            await worker.answer("scope")
            way.lose_answers = 1
            asking = group.create_task(client.request("scope", say(0), message_id="m"))
            await worker.answer("scope", *heard(0))
        assert way.lost == 1
        assert asking.result() == heard(0)
        assert await worker_backlog(redis_server, "scope") == 0


async def worker_backlog(server: Server, scope: str) -> int:
    return int(server.command("XLEN", f"{{wherry:{partition_of(scope, 64)}}}:in")[1:])
