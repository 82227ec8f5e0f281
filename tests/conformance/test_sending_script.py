"""What clients need of `wherry.broker.streams`, on every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from wherry.broker.connect import Store
from wherry.broker.entries import read_entry
from wherry.broker.link import Link
from wherry.broker.scripts import Scripts
from wherry.broker.streams import RawEntry, SendTerms, read_streams, send_entries
from wherry.broker.wire import Keys, pack
from wherry.errors import StoreError, WherryError
from wherry.model import BadEntry, Entry, EntryId, Outgoing, Partition, ScopeId

KEYS = Keys("wherry")
pytestmark = pytest.mark.without("acl", why="tests look at keys with the same link")

PARTITION = Partition(3)
IN = KEYS.entries(PARTITION)


@asynccontextmanager
async def linked(store: Store) -> AsyncIterator[Link]:
    link = store.link()
    try:
        yield link
    finally:
        await link.aclose()


def outgoing(number: int, message_id: str = "") -> Outgoing:
    packed = pack({"type": "say", "number": number}, "message")
    return Outgoing(scope_id=ScopeId("scope"), message=packed, message_id=message_id)


async def send(link: Link, *entries: Outgoing, backlog: int = 100) -> list[str] | WherryError:
    terms = SendTerms(backlog=backlog, dedup_ttl_ms=60_000)
    answers, _ = await send_entries(link, Scripts().send, KEYS, {PARTITION: entries}, terms)
    return answers[PARTITION]


def _read(raw: RawEntry) -> Entry | BadEntry:
    return read_entry(PARTITION, EntryId(raw[0].decode()), raw[1], 1_000)


async def numbers(link: Link) -> list[int]:
    found = await read_streams(link, {IN: "0-0"}, count=100, block_ms=None)
    entries = [_read(raw) for raw in found.get(IN, [])]
    return [entry.message["number"] for entry in entries if isinstance(entry, Entry)]


async def test_every_field_arrives_as_it_was_sent(store: Store):
    async with linked(store) as link:
        entry = Outgoing(
            scope_id=ScopeId("ä\n scope"),
            message=pack({"type": "say", "data": b"\r\n\x00\xff"}, "message"),
            scope_keys=pack({"channel": "route"}, "keys"),
            inbox="box",
            headers=pack({"a": "b"}, "headers"),
            mark=2,
            expires_unix_ms=1_700_000_000_000,
            message_id="id k",
        )
        assert isinstance(await send(link, entry, outgoing(1)), list)
        found = await read_streams(link, {IN: "0-0"}, count=10, block_ms=None)
        first, second = (_read(raw) for raw in found[IN])
        assert isinstance(first, Entry)
        assert isinstance(second, Entry)
        assert first.scope_id == "ä\n scope"
        assert first.message == {"type": "say", "data": b"\r\n\x00\xff"}
        assert first.extras.scope_keys == entry.scope_keys
        assert (first.extras.inbox, first.extras.headers, first.extras.mark) == (
            "box",
            {"a": "b"},
            2,
        )
        assert (first.extras.expires_unix_ms, first.extras.message_id) == (
            1_700_000_000_000,
            "id k",
        )
        assert (second.message["number"], second.extras.message_id) == (1, "")


async def test_bound_refuses_everything_new_behind_it(store: Store):
    async with linked(store) as link:
        assert isinstance(await send(link, outgoing(0, "known")), list)
        answer = await send(
            link, outgoing(1), outgoing(2), outgoing(3, "new"), outgoing(0, "known"), backlog=2
        )
        assert isinstance(answer, list)
        assert [one[:1] for one in answer] == ["1", "", "", "="]
        assert await numbers(link) == [0, 1]
        await link.call("DEL", IN)
        (again,) = await send(link, outgoing(3, "new"))  # pyright: ignore[reportGeneralTypeIssues]
        assert not again.startswith("=")


async def test_message_ids_are_told_apart_among_others(store: Store):
    async with linked(store) as link:
        first = await send(link, outgoing(0, "a"), outgoing(1), outgoing(2, "b"), outgoing(3, "a"))
        assert isinstance(first, list)
        assert first[3] == f"={first[0]}"
        assert await send(link, outgoing(4, "b"), outgoing(5, "a")) == [
            f"={first[2]}",
            f"={first[0]}",
        ]
        assert await numbers(link) == [0, 1, 2]


async def test_thousand_entries_fit_into_one_call(store: Store):
    async with linked(store) as link:
        ids = await send(link, *(outgoing(n, str(n)) for n in range(1_000)), backlog=10_000)
        assert isinstance(ids, list)
        assert len(set(ids)) == 1_000


async def test_partition_that_cannot_take_entries_answers_for_itself(store: Store):
    async with linked(store) as link:
        await link.call("SET", IN, "x")
        assert isinstance(await send(link, outgoing(0)), StoreError)


async def test_commands_before_a_read_are_carried_out_first(store: Store):
    async with linked(store) as link:
        ids = await send(link, outgoing(0), outgoing(1))
        assert isinstance(ids, list)
        found = await read_streams(
            link, {IN: "0-0"}, count=10, block_ms=50, before=[("XDEL", IN, ids[0])]
        )
        assert [entry_id.decode() for entry_id, _ in found[IN]] == [ids[1]]
        assert await read_streams(link, {IN: ids[1]}, count=10, block_ms=1) == {}


@pytest.mark.without("memory", why="its imitation has no such error for reads")
async def test_error_of_a_read_behind_other_commands_is_raised(store: Store):
    async with linked(store) as link:
        await link.call("SET", "plain", "x")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await read_streams(link, {"plain": "0-0"}, count=1, block_ms=None, before=[("PING",)])
