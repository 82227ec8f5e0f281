"""One partition under one owner, for the tests of scripts: on every server, and in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from tests.servers import available_servers
from wherry.broker.calls import Call, Retention, encode_calls, part_answers, read_answers
from wherry.broker.commits import (
    Answer,
    Answers,
    Commit,
    Operation,
    Outcome,
    StateChange,
    Step,
)
from wherry.broker.connect import CommandLink, Store, open_store
from wherry.broker.leases import Leases
from wherry.broker.scripts import Scripts, fit_scripts, run_many
from wherry.broker.streams import open_namespace
from wherry.broker.wire import Keys, Meta
from wherry.model import EntryId, Partition, ScopeId, Token

PLACES = ["memory", *available_servers()]
"""Where scripts must do the same: parametrize ``place`` with it, and hand it to `opened`."""

KEPT = Retention(reply_length=1_000, reply_ttl_ms=60_000, state_ttl_ms=0)
DONE, ALREADY, VOID = (Outcome.DONE, ""), (Outcome.ALREADY, ""), (Outcome.VOID, "")
STALE = (Outcome.STALE, "")
ZERO = Partition(0)

_fresh = itertools.count()


def opened(place: str, server_pool: Any) -> Store:
    """An empty store in memory, or the emptied server of that name."""
    if place == "memory":
        return open_store(f"memory://scripts-{next(_fresh)}")
    return open_store(server_pool.fresh(place).url)


def steps_of(operations: Sequence[Operation]) -> list[Step]:
    """Operations as a worker sends them: answers that follow one another together."""
    steps: list[Step] = []
    for one in operations:
        if not isinstance(one, Answer):
            steps.append(one)
            continue
        last = steps[-1] if steps else None
        if (
            not isinstance(last, Answers)
            or last.scope_id != one.scope_id
            or not last.is_before(one.state)
        ):
            last = Answers(one.scope_id, bool(one.state), one.state.expected if one.state else "")
            steps.append(last)
        packed = one.state.packed if one.state else None
        assert one.state is None or packed
        last.add(one.entry_id, one.reply, packed, len(one.reply) + len(packed or b""))
    return steps


class Tenure:
    """Partition 0, claimed by one worker; everything can be looked at."""

    def __init__(self, link: CommandLink, scripts: Scripts, keys: Keys, meta: Meta) -> None:
        self.link = link
        self.scripts = scripts
        self.keys = keys
        self.meta = meta
        self.token = Token("")

    def leases(self, worker_id: str, ttl_ms: int = 60_000) -> Leases:
        return Leases(
            self.link, self.scripts, self.keys, worker_id=worker_id, ttl_ms=ttl_ms, meta=self.meta
        )

    async def claim(self) -> None:
        (claimed,) = await self.leases("worker").claim([ZERO])
        self.token = claimed.token

    async def add(self, scope: str = "s", *fields: str, partition: Partition = ZERO) -> EntryId:
        key = self.keys.entries(partition)
        entry_id = await self.link.call("XADD", key, "*", "s", scope, "m", b"\x80", *fields)
        return EntryId(entry_id.decode())

    async def call(
        self,
        *operations: Operation,
        is_resent: bool = False,
        token: Token | None = None,
        retention: Retention = KEPT,
        emitted: int = 0,
        aging: Collection[ScopeId] | None = None,
        has_failures: bool = True,
    ) -> list[tuple[Outcome, str]] | None:
        call = Call(
            partition=ZERO,
            token=self.token if token is None else token,
            steps=steps_of(operations),
            is_resent=is_resent,
            emitted=emitted,
            aging=aging,
            has_failures=has_failures,
        )
        [answer] = await self.joint(call, retention=retention)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def joint(
        self, *calls: Call, retention: Retention = KEPT
    ) -> list[list[tuple[Outcome, str]] | Exception | None]:
        """Calls of several partitions in one command, and what each was answered."""
        script = self.scripts.commit
        (answer,) = await run_many(
            self.link, [(script, encode_calls(script, self.keys, calls, retention))]
        )
        return [
            one if isinstance(one, Exception) else read_answers(one)
            for one in part_answers(answer, calls)
        ]

    async def stream(self, key: str) -> list[dict[str, bytes]]:
        return [
            {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
            for _, flat in await self.link.call("XRANGE", key, "-", "+")
        ]

    async def replies(self, scope: str = "s") -> list[dict[str, bytes]]:
        return await self.stream(self.keys.replies(ZERO, scope))

    async def inbox(self, inbox: str) -> list[dict[str, bytes]]:
        return await self.stream(self.keys.inbox(ZERO, inbox))

    async def entries(self) -> list[str]:
        found = await self.link.call("XRANGE", self.keys.entries(ZERO), "-", "+")
        return [entry_id.decode() for entry_id, _ in found]

    async def dead(self) -> list[dict[str, bytes]]:
        return await self.stream(self.keys.dead(ZERO))

    async def state(self, scope: str = "s") -> tuple[bytes | None, bytes | None]:
        found = await self.link.call("HMGET", self.keys.state(ZERO, scope), "state", "v")
        return tuple(found)

    async def names(self) -> list[bytes]:
        """All keys of the partition; a script asks, which goes to the node that has them."""
        look = "return redis.call('KEYS', ARGV[1])"
        return await self.link.call("EVAL", look, 1, self.keys.entries(ZERO), "{*:0}*")

    async def everything(self) -> dict[bytes, Any]:
        """All keys of the partition with what they hold: to see that nothing was written."""
        found: dict[bytes, Any] = {}
        for key in sorted(await self.names()):
            kind = await self.link.call("TYPE", key)
            read = {
                b"stream": ("XRANGE", key, "-", "+"),
                b"hash": ("HGETALL", key),
                b"string": ("GET", key),
            }[kind if isinstance(kind, bytes) else str(kind).encode()]
            found[key] = await self.link.call(*read)
            if read[0] == "HGETALL":
                found[key] = {*zip(found[key][::2], found[key][1::2], strict=True)}
        return found


@asynccontextmanager
async def tenure(store: Store) -> AsyncGenerator[Tenure]:
    link = store.link()
    keys = Keys("scripts")
    try:
        meta = await open_namespace(link, keys, 4)
        held = Tenure(link, await fit_scripts(link, memory=store.is_memory), keys, meta)
        await held.claim()
        yield held
    finally:
        await link.aclose()


def reply(number: int) -> bytes:
    return msgpack.packb({"type": "reply", "number": number})


def commit(entry_id: EntryId, *replies: bytes, scope: str = "s", **more: Any) -> Commit:
    return Commit(entry_id, ScopeId(scope), replies, **more)


def change(expected: str, packed: bytes | None) -> StateChange:
    return StateChange(expected, packed)
