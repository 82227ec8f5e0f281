"""An owner of partitions that does by hand what a worker does: claim, read, emit, commit, bury."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from wherry.broker.calls import Call, Retention, encode_calls, read_answers
from wherry.broker.commits import Bury, Commit, Emit, Further, Outcome
from wherry.broker.connect import Store, open_store
from wherry.broker.entries import read_entry
from wherry.broker.leases import Claimed, Leases
from wherry.broker.link import Link
from wherry.broker.scripts import Scripts, fit_scripts, is_unknown_script
from wherry.broker.streams import open_namespace, read_streams
from wherry.broker.wire import Keys
from wherry.errors import StoreError
from wherry.model import ORIGIN, Entry, EntryId, Partition, ScopeId, partition_of


class Owner:
    """Owns whatever partition it is asked to serve; replies are dicts with a ``type``."""

    def __init__(self, link: Link, scripts: Scripts, leases: Leases, keys: Keys, partitions: int):
        self.link = link
        self.keys = keys
        self.partitions = partitions
        self.retention = Retention(reply_length=1_000, reply_ttl_ms=3_600_000, state_ttl_ms=0)
        self._scripts = scripts
        self._leases = leases
        self._claimed: dict[Partition, Claimed] = {}
        self._emits = 0

    def partition(self, scope: str) -> Partition:
        return partition_of(scope, self.partitions)

    def replies_key(self, scope: str) -> str:
        return self.keys.replies(self.partition(scope), scope)

    async def entries(self, scope: str, count: int = 1) -> list[Entry]:
        """Wait until the scope's partition holds so many entries and return them."""
        partition = self.partition(scope)
        key = self.keys.entries(partition)
        while True:
            found = await read_streams(self.link, {key: ORIGIN}, count=5_000, block_ms=50)
            entries = [
                entry
                for entry_id, flat in found.get(key, [])
                if isinstance(
                    entry := read_entry(partition, EntryId(entry_id.decode()), flat, 2**20), Entry
                )
            ]
            if len(entries) >= count:
                return entries

    async def take_over(self, scope: str) -> None:
        """Claim the partition anew, as after the death of its owner."""
        partition = self.partition(scope)
        (self._claimed[partition],) = await self._leases.claim([partition])
        self._emits = 0

    def attempt(self, scope: str, attempt: int = 1) -> str:
        return f"{self._claimed[self.partition(scope)].token.partition(':')[0]}.{attempt}"

    async def commit(self, entry: Entry, *replies: dict[str, Any], first: int = 0) -> None:
        """Finish an entry with its (last) replies, and the end mark if it asks for one."""
        await self._claim(entry.scope_id)
        operation = Commit(
            entry.id,
            entry.scope_id,
            _pack(replies),
            inbox=entry.extras.inbox,
            end=self.attempt(entry.scope_id) if entry.extras.mark else "",
            first=first,
        )
        await self._call(entry.scope_id, [operation])

    async def emit(
        self, cause: Entry | None, scope: str, *replies: dict[str, Any], first: int = 0
    ) -> None:
        """Write replies before the commit, or outside any message."""
        await self._claim(scope)
        self._emits += 1
        operation = Emit(
            self._emits,
            cause.id if cause else "",
            ScopeId(scope),
            _pack(replies),
            inbox=cause.extras.inbox if cause else "",
            attempt=self.attempt(scope) if cause else "",
            first=first,
        )
        await self._call(scope, [operation])

    async def bury(self, entry: Entry, reason: str) -> None:
        await self._claim(entry.scope_id)
        await self._call(
            entry.scope_id, [Bury(entry.id, entry.scope_id, reason, inbox=entry.extras.inbox)]
        )

    async def answer(self, scope: str, *replies: dict[str, Any], count: int = 1) -> None:
        """Commit the next ``count`` entries of a scope's partition with these replies."""
        for entry in (await self.entries(scope, count))[:count]:
            await self.commit(entry, *replies)

    async def reply_ids(self, scope: str) -> list[str]:
        entries = await self.link.call("XRANGE", self.replies_key(scope), "-", "+")
        return [entry_id.decode() for entry_id, _ in entries]

    async def _claim(self, scope: str) -> None:
        if self.partition(scope) not in self._claimed:
            await self.take_over(scope)

    async def _call(self, scope: str, operations: Sequence[Further]) -> None:
        claimed = self._claimed[self.partition(scope)]
        call = Call(partition=claimed.partition, token=claimed.token, steps=operations)
        command = encode_calls(self._scripts.commit, self.keys, [call], self.retention)
        try:
            answer = await self.link.call(*command)
        except StoreError as error:
            if not is_unknown_script(error):
                raise
            answer = await self.link.call(*self._scripts.commit.whole(command))
        assert read_answers(answer) == [(Outcome.DONE, "")] * len(operations)


@asynccontextmanager
async def owner(store: Store | str, *, partitions: int | None = None) -> AsyncIterator[Owner]:
    store = open_store(store) if isinstance(store, str) else store
    link = store.link()
    keys = Keys("wherry")
    try:
        meta = await open_namespace(link, keys, partitions)
        scripts = await fit_scripts(link, memory=store.is_memory)
        leases = Leases(
            link,
            scripts,
            keys,
            worker_id="by-hand",
            ttl_ms=60_000,
            meta=meta,
        )
        yield Owner(link, scripts, leases, keys, meta.partitions)
    finally:
        await link.aclose()


async def add_reply(
    link: Link, key: str, number: int, *options: str, cause: str = "1-0", entry_id: str = "*"
) -> EntryId:
    """Append a reply as it stands in the stream; options such as ``MAXLEN = 3`` go to XADD."""
    packed = msgpack.packb({"type": "reply", "number": number})
    answer = await link.call(
        "XADD", key, *options, entry_id, "m", packed, "i", cause, "n", number, "s", "scope"
    )
    return EntryId(answer.decode())


def say(number: int) -> dict[str, Any]:
    """A message to a scope."""
    return {"type": "say", "number": number}


def heard(*numbers: int) -> list[dict[str, Any]]:
    """Replies."""
    return [{"type": "heard", "number": number} for number in numbers]


async def commands_sent(link: Link) -> dict[str, int]:
    """How often each command was called since the statistics were reset, scripts' own included."""
    text = (await link.call("INFO", "commandstats")).decode()
    lines = (line.split(":", 1) for line in text.splitlines() if line.startswith("cmdstat_"))
    return {
        name.removeprefix("cmdstat_").lower(): int(stats.split(",")[0].removeprefix("calls="))
        for name, stats in lines
    }


async def cost_of_reading(link: Link, count: int) -> dict[str, int]:
    """Wait until clients have read so many times; how often what else was called meanwhile."""
    await link.call("CONFIG", "RESETSTAT")
    sent: dict[str, int] = {}

    async def has_read() -> bool:
        nonlocal sent
        sent = await commands_sent(link)
        return sent.pop("xread", 0) >= count

    await until(has_read)
    sent.pop("info", None)
    return sent


async def until(condition: Any, within_s: float = 10.0) -> None:
    """Return when a condition (plain or asynchronous) holds."""
    async with asyncio.timeout(within_s):
        while True:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return
            await asyncio.sleep(0.005)


def _pack(replies: Sequence[dict[str, Any]]) -> list[bytes]:
    return [msgpack.packb(reply) for reply in replies]
