"""Reading and appending, on every server and in memory."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.broker.tenure import DONE, PLACES, ZERO, commit, opened, reply, tenure
from tests.e2e.rig import until
from tests.servers import Server, available_servers
from wherry.broker.calls import Call
from wherry.broker.connect import PooledLink, Store, open_store
from wherry.broker.history import Past
from wherry.broker.link import Link
from wherry.broker.streams import (
    SendTerms,
    check_eviction,
    fetch_entries,
    load_states,
    open_namespace,
    read_streams,
    send_entries,
)
from wherry.broker.wire import Keys
from wherry.errors import StoreError, StoreIncompatible, StoreUnavailable
from wherry.model import ORIGIN, Outgoing, Partition, ScopeId

ONE = Partition(1)


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest, server_pool: Any) -> Store:
    return opened(request.param, server_pool)


async def test_read_returns_what_is_behind_each_cursor(store: Store):
    async with tenure(store) as held:
        ids = [await held.add() for _ in range(4)]
        await held.link.call("XADD", held.keys.entries(ONE), "7-7", "a", "b")
        zero, one = held.keys.entries(ZERO), held.keys.entries(ONE)
        got = await read_streams(held.link, {zero: ids[1], one: ORIGIN}, count=10, block_ms=None)
        assert [entry_id.decode() for entry_id, _ in got[zero]] == ids[2:]
        assert [(entry_id, flat) for entry_id, flat in got[one]] == [(b"7-7", [b"a", b"b"])]
        got = await read_streams(held.link, {zero: ORIGIN}, count=2, block_ms=None)
        assert len(got[zero]) == 2


async def is_blocked(store: Store, link: Link) -> bool:
    """Whether some client waits for an entry; in memory nobody can tell."""
    return store.is_memory or b"blocked_clients:1" in await link.call("INFO", "clients")


async def test_blocking_read_returns_empty_or_with_what_comes(store: Store):
    async with tenure(store) as held:
        key = held.keys.entries(ZERO)
        assert await read_streams(held.link, {key: ORIGIN}, count=2, block_ms=20) == {}
        writer = store.link()
        try:
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                read = tasks.create_task(
                    read_streams(held.link, {key: ORIGIN}, count=2, block_ms=4_000)
                )
                await until(lambda: is_blocked(store, writer))
                await writer.call("XADD", key, "*", "a", "b")
            assert [flat for _, flat in read.result()[key]] == [[b"a", b"b"]]
        finally:
            await writer.aclose()


async def test_entries_are_fetched_by_id(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        two = await held.add()
        await held.link.call("XDEL", held.keys.entries(ZERO), one)
        found = await fetch_entries(held.link, held.keys.entries(ZERO), [one, two, "1-1"])
        assert [raw and raw[0].decode() for raw in found] == [None, two, None]


async def test_states_are_loaded_in_one_trip_and_errors_stand_in_their_place(store: Store):
    async with tenure(store) as held:
        await held.link.call("HSET", held.keys.state(ZERO, "a"), "state", "st", "v", "1-1")
        await held.link.call("SET", held.keys.state(ONE, "b"), "mine")
        scopes = [(ZERO, ScopeId("a")), (ONE, ScopeId("b")), (ZERO, ScopeId("c"))]
        known, wrong, unknown = await load_states(held.link, held.keys, scopes)
        assert known == (b"st", "1-1")
        assert isinstance(wrong, StoreError)
        assert unknown == (b"", "")


async def test_batch_with_a_damaged_message_id_is_appended_whole_or_not_at_all(store: Store):
    async with tenure(store) as held:
        await held.link.call("HSET", held.keys.sent(ZERO, "k"), "not", "ours")
        batch = [Outgoing(scope_id=ScopeId("s"), message=b"m", message_id=one) for one in ("", "k")]
        terms = SendTerms(backlog=9, dedup_ttl_ms=1_000)
        answers, _ = await send_entries(
            held.link, held.scripts.send, held.keys, {ZERO: batch}, terms
        )
        assert isinstance(answers[ZERO], StoreError)
        assert await held.entries() == []


async def test_message_id_counts_within_one_batch(store: Store):
    async with tenure(store) as held:
        batch = [Outgoing(scope_id=ScopeId("s"), message=b"m", message_id="k")] * 2
        terms = SendTerms(backlog=9, dedup_ttl_ms=1_000)
        answers, _ = await send_entries(
            held.link, held.scripts.send, held.keys, {ZERO: batch}, terms
        )
        (entry_id,) = await held.entries()
        assert answers == {ZERO: [entry_id, f"={entry_id}"]}


async def test_first_opener_sets_the_partition_count_and_others_adopt_it(store: Store):
    link = store.link()
    try:
        keys = Keys("meta")
        first = await open_namespace(link, keys, 8)
        assert first.partitions == 8
        assert await open_namespace(link, keys, None) == first
        assert await open_namespace(link, keys, 8) == first
        changed = await open_namespace(link, keys, 16)
        assert changed.partitions == 16, "it is empty and may be changed"
        assert changed.generation != first.generation
    finally:
        await link.aclose()


@pytest.mark.parametrize("kind", ["entry", "lease", "state"])
async def test_count_of_a_used_namespace_is_not_changed(store: Store, kind: str):
    link = store.link()
    try:
        keys = Keys("meta")
        await open_namespace(link, keys, 8)
        if kind == "entry":
            await link.call("XADD", keys.entries(ZERO), "*", "a", "b")
        elif kind == "lease":
            await link.call("HSET", keys.lease(ZERO), "owner", "somebody")
        else:
            await link.call("HSET", keys.state(ZERO, "a"), "v", "1-1")
        with pytest.raises(StoreIncompatible, match="has 8 partitions"):
            await open_namespace(link, keys, 16)
        assert (await open_namespace(link, keys, None)).partitions == 8
    finally:
        await link.aclose()


async def test_namespaces_of_another_protocol_are_refused(store: Store):
    link = store.link()
    try:
        keys = Keys("meta")
        await link.call("HSET", keys.meta, "protocol_min", "2", "protocol_max", "3")
        with pytest.raises(StoreIncompatible, match="protocol 2 to 3"):
            await open_namespace(link, keys, None)
    finally:
        await link.aclose()


async def test_namespaces_whose_names_begin_alike_are_apart(store: Store):
    link = store.link()
    try:
        await link.call("XADD", Keys("meta.more").entries(ZERO), "*", "a", "b")
        await open_namespace(link, Keys("meta"), 8)
        assert (await open_namespace(link, Keys("meta"), 16)).partitions == 16
    finally:
        await link.aclose()


async def test_server_that_evicts_is_refused(start_server: Any):
    args = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    link = open_store(start_server(args=args).url).link()
    try:
        with pytest.raises(StoreIncompatible, match="noeviction"):
            await check_eviction(link)
        await link.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await check_eviction(link)
    finally:
        await link.aclose()


async def test_other_history_is_told_before_anything_is_sent_to_it(start_server: Any):
    server: Server = start_server()
    link, other, questions = (open_store(server.url).link() for _ in range(3))
    assert isinstance(link, PooledLink)
    assert isinstance(other, PooledLink)
    past = link.past = other.past = Past()
    told: list[str] = []
    past.on_other = lambda: told.append("other")
    try:
        await link.call("PING")
        await other.call("PING")
        await questions.call("CLIENT", "KILL", "ID", link.client_id or 0)
        await _reconnect(link)
        assert link.connects == 2
        assert not told, "the same server, by a new connection"
        await asyncio.to_thread(server.restart)
        for one in (link, other):
            # Redis-py may notice by itself that the connection has gone, and connects in silence.
            with pytest.raises(StoreUnavailable):
                await one.call("INCR", "calls")
        assert told == ["other"], "told once, whichever link meets it first"
        await _reconnect(questions)
        assert await questions.call("EXISTS", "calls") == 0
        for one in (link, other):
            await _reconnect(one)
        assert told == ["other"]
    finally:
        for one in (link, other, questions):
            await one.aclose()


async def _reconnect(link: Link) -> None:
    """Redis-py may notice by itself that a connection was closed, and then connects in silence."""
    with contextlib.suppress(StoreUnavailable):
        await link.call("PING")
    await link.call("PING")


async def test_memory_full_server_still_commits(start_server: Any):
    """At its memory limit producers are refused; a worker must go on, which frees memory."""
    async with tenure(open_store(start_server().url)) as held:
        ids = [await held.add() for _ in range(20)]
        await held.link.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await held.add()
        assert await held.call(*(commit(one, reply(1)) for one in ids)) == [DONE] * 20
        await held.claim()
        assert (await held.leases("a").beat({}, 1_000)).members.keys() == {"a"}
        assert await held.leases("worker").release(ZERO, held.token)


@pytest.mark.parametrize("server", available_servers())
async def test_memory_full_server_commits_partitions_that_share_a_call(
    server: str, server_pool: Any
):
    async with tenure(opened(server, server_pool)) as held:
        (other,) = await held.leases("worker").claim([ONE])
        ids = [await held.add(), await held.add(partition=ONE)]
        calls = [
            Call(partition=partition, token=token, steps=[commit(entry_id, reply(1))])
            for partition, token, entry_id in zip(
                (ZERO, ONE), (held.token, other.token), ids, strict=True
            )
        ]
        await held.link.call("CONFIG", "SET", "maxmemory", "1")
        try:
            assert await held.joint(*calls) == [[DONE], [DONE]]
        finally:
            await held.link.call("CONFIG", "SET", "maxmemory", "0")
