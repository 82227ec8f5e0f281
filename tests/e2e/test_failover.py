"""A replica that lacks the last commits is promoted, under load.

What the old primary accepted and did not pass on is gone; nobody can remember it. What survived is
exact: each message that the replica knew takes effect once and in order, and whoever had read more
is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.rig import QUICK, Notes, Rig, rig, until, working
from tests.e2e.test_durable import DURABLE, totals
from tests.proxy import proxy
from wherry import Client, Config
from wherry.broker.connect import open_store
from wherry.broker.wire import Meta
from wherry.errors import RepliesTrimmed, StoreUnavailable
from wherry.model import Reply, id_key

SCOPES = [f"s{n}" for n in range(12)]


Message = tuple[str, str]
"""Scope and entry id; an id alone is one in its partition."""


class Producer:
    """Sends numbers without a pause, over whatever server there is."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.accepted: dict[Message, int] = {}
        self.count = 0

    async def run(self) -> None:
        while True:
            await self.send()
            await asyncio.sleep(0.002)

    async def send(self) -> None:
        """Send one to each scope; what a failure leaves open is sent no more."""
        for scope in SCOPES:
            self.count += 1
            number = self.count
            try:
                entry_id = await self.client.send(scope, {"type": "n", "number": number})
            except StoreUnavailable:
                await asyncio.sleep(0.05)
            else:
                self.accepted[scope, entry_id] = number


async def known(seen: Rig) -> set[Message]:
    """All messages that a server knows of: unfinished or answered."""
    ids: set[Message] = set()
    for scope in SCOPES:
        waiting = await seen.link.call("XRANGE", seen.input(scope), "-", "+")
        for entry_id, flat in waiting:
            ids.add((flat[flat.index(b"s") + 1].decode(), entry_id.decode()))
        ids |= {(scope, reply.cause) for reply in await seen.replies(scope)}
    return ids


@asynccontextmanager
async def looking(url: str, other: Rig) -> AsyncGenerator[Rig]:
    """The same namespace on a replica, to which nothing can be written yet."""
    seen = Rig(open_store(url).link(), other.keys, Meta(partitions=other.partitions, generation=""))
    try:
        yield seen
    finally:
        await seen.link.aclose()


async def _is_replicated(seen: Rig) -> bool:
    return b"master_link_status:up" in await seen.link.call("INFO", "replication")


@pytest.mark.limit_s(120)
async def test_surviving_history_is_exact_when_a_replica_lacks_the_last_commits(start_server: Any):
    primary = start_server()
    replica = start_server(args=("--replicaof", f"127.0.0.1 {primary.port}"))
    hooks = Notes()
    settings: dict[str, Any] = {**QUICK, "reply_length": 100_000}
    config = Config(**settings)
    async with (
        rig(primary.url) as before,
        looking(replica.url, before) as after,
        proxy(primary.port) as way,
        Client(way.url, config=config) as client,
        working(totals, way.url, hooks=hooks, reply_length=100_000, **DURABLE),
        asyncio.TaskGroup() as tasks,
    ):
        producer = Producer(client)
        producing = tasks.create_task(producer.run())
        await until(lambda: _is_replicated(after))
        await until(lambda: len(producer.accepted) > 300)
        await after.link.call("REPLICAOF", "NO", "ONE")
        survived = await known(after)
        count = len(producer.accepted)
        await until(lambda: len(producer.accepted) > count + 300)
        await until(lambda: _answers_more(before, survived))
        way.server_port = replica.port
        way.cut()
        await asyncio.to_thread(primary.stop)
        accepted = dict(producer.accepted)
        await until(lambda: len(producer.accepted) > len(accepted) + 300)
        producing.cancel()
        await after.drained()
        lost = set(accepted) - survived
        assert len(lost) > 100, "or nothing was at stake"
        assert hooks.count("partition lost") >= after.partitions
        taken: list[int] = []
        for scope in SCOPES:
            replies = await after.replies(scope)
            causes = [reply.cause for reply in replies]
            assert causes == sorted(set(causes), key=id_key), "once, and in order"
            sums = [one.message["number"] for one in replies if one.message]
            numbers = [now - then for then, now in pairwise([0, *sums])]
            assert len(numbers) == len(causes)
            for cause, number in zip(causes, numbers, strict=True):
                # The answer to the producer may have been lost at the switch.
                assert producer.accepted.get((scope, cause), number) == number
            taken += numbers
            assert await after.state(scope) == {"total": sum(numbers)}
        assert len(set(taken)) == len(taken), "each number took effect once"
        done = await known(after)
        assert done >= survived
        assert set(producer.accepted) - done <= lost


async def _answers_more(seen: Rig, survived: set[Message]) -> bool:
    """Whether each scope has replies to what the replica has never heard of."""
    answers = [await seen.replies(scope) for scope in SCOPES]
    return all(
        any((scope, one.cause) not in survived for one in replies)
        for scope, replies in zip(SCOPES, answers, strict=True)
    )


@pytest.mark.limit_s(120)
@pytest.mark.parametrize("has_gone_on", [False, True])
async def test_reader_that_had_seen_more_is_told(start_server: Any, *, has_gone_on: bool):
    """Also if the stream has gone on meanwhile: the reply that it took last is not there."""
    primary = start_server()
    replica = start_server(args=("--replicaof", f"127.0.0.1 {primary.port}"))
    config = Config(**QUICK)
    async with (
        rig(primary.url) as before,
        looking(replica.url, before) as after,
        proxy(primary.port) as way,
        Client(way.url, config=config) as client,
        working(totals, way.url, **DURABLE),
    ):
        await until(lambda: _is_replicated(after))
        first = [await client.send("a", {"type": "n", "number": n}) for n in range(3)]
        await before.answered("a", 3)
        await until(lambda: _has_replies(after, 3))
        await after.link.call("REPLICAOF", "NO", "ONE")
        gone = await client.send("a", {"type": "n", "number": 10})
        got: list[Reply] = []

        async def follow() -> None:
            async for reply in client.replies("a", follow=True):
                assert isinstance(reply, Reply)
                got.append(reply)
                if reply.cause == gone:
                    if has_gone_on:
                        await after.send("a", {"type": "n", "number": 20})
                    way.server_port = replica.port
                    way.cut()

        async with asyncio.timeout(30):
            with pytest.raises(RepliesTrimmed):
                await follow()
        assert [one.cause for one in got] == [*first, gone]
        again = [one async for one in client.replies("a", after="0-0")]
        assert [one.cause for one in again if isinstance(one, Reply)][:3] == first


async def _has_replies(seen: Rig, count: int) -> bool:
    return len(await seen.replies("a")) == count
