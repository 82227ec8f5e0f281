"""Producers and readers: what they send is kept in order, what they ask is answered, or told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.conformance.parts import SETTINGS, at_work, client, seeing, totals
from tests.stores import Place
from wherry import (
    BacklogFull,
    Config,
    MessageError,
    NotReplicated,
    RepliesTrimmed,
    Reply,
    RequestTimeout,
    SyncClient,
)

SCOPES = [f"s{n}" for n in range(24)]


def say(number: int) -> dict[str, Any]:
    return {"type": "n", "number": number}


async def test_requests_in_all_partitions_are_answered(place: Place):
    async with seeing(place), at_work(totals, place), client(place) as producer:
        async with asyncio.TaskGroup() as tasks:
            asking = [
                tasks.create_task(producer.request(scope, say(number)))
                for number in (1, 2)
                for scope in SCOPES
            ]
        totals_ = [[reply["total"] for reply in one.result()] for one in asking]
        assert totals_ == [[1]] * 24 + [[3]] * 24


async def test_message_id_is_accepted_once(place: Place):
    async with seeing(place) as seen, client(place) as producer:
        first = await producer.send("s", say(1), message_id="k")
        assert await producer.send("s", say(1), message_id="k") == first
        assert await seen.backlog() == 1
        async with at_work(totals, place):
            await seen.drained()
            assert await producer.send("s", say(1), message_id="k") == first
        assert await seen.backlog() == 0


async def test_many_are_sent_in_order_and_a_full_partition_is_told(place: Place):
    async with seeing(place) as seen, client(place, backlog=40) as producer:
        ids = await producer.send_many([(scope, say(n)) for n in range(4) for scope in SCOPES])
        assert len(ids) == len(set(zip(ids, SCOPES * 4, strict=True))) == 96
        with pytest.raises(BacklogFull) as raised:
            await producer.send_many([("s0", say(n)) for n in range(4, 60)])
        accepted = [one for one in raised.value.accepted if one]
        async with at_work(totals, place):
            await seen.drained()
        numbers = [one.message["number"] for one in await seen.replies("s0") if one.message]
        assert numbers == list(range(4 + len(accepted)))


async def test_readers_follow_and_resume(place: Place):
    """Many scopes in all partitions; one that comes back goes on behind what it has."""
    async with (
        seeing(place),
        at_work(totals, place),
        client(place) as producer,
        client(place, "reader") as reader,
    ):
        ready = asyncio.Semaphore(0)

        async def follow(scope: str) -> list[Reply]:
            taken: list[Reply] = []
            events = reader.replies(scope, follow=True, heartbeat_s=0.2)
            async with aclosing(events):
                async for event in events:
                    ready.release()
                    if isinstance(event, Reply):
                        taken.append(event)
                    if len(taken) == 3:
                        break
            return taken

        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(follow(scope)) for scope in SCOPES]
            for _ in SCOPES:
                await ready.acquire()
            for number in (1, 2, 3):
                await producer.send_many([(scope, say(number)) for scope in SCOPES])
        for scope, task in zip(SCOPES, following, strict=True):
            replies = task.result()
            assert [one.message["total"] for one in replies if one.message] == [1, 3, 6]
            rest = [one async for one in reader.replies(scope, after=replies[0].id)]
            assert rest == replies[1:]


async def test_reader_is_told_what_is_gone(place: Place):
    async with (
        seeing(place) as seen,
        client(place) as producer,
        client(place, "reader") as reader,
        at_work(totals, place, reply_length=5),
    ):
        await producer.request("s", say(0))
        [first] = [one async for one in reader.replies("s") if isinstance(one, Reply)]
        await producer.send_many([("s", say(n)) for n in range(400)])
        await seen.drained()
        with pytest.raises(RepliesTrimmed):
            [one async for one in reader.replies("s", after=first.id)]
        kept = [one async for one in reader.replies("s")]
        assert 5 <= len(kept) < 400


async def test_what_cannot_be_is_told(place: Place):
    async with seeing(place) as seen, client(place) as producer:
        for scope, message in (("", say(0)), ("~s", say(0)), ("s", {"type": "n", "x": object()})):
            with pytest.raises(MessageError):
                await producer.send(scope, message)
        assert await seen.backlog() == 0
        with pytest.raises(RequestTimeout):
            await producer.request("s", say(0), timeout_s=0.05)


@pytest.mark.without("memory", why="the imitation has no replicas")
async def test_durable_sending_waits_for_the_replicas_that_there_are(place: Place):
    async with seeing(place) as seen, client(place, replicas_timeout_s=0.5) as producer:
        ids = [await producer.send(f"s{n}", say(n), replicas=place.replicas) for n in range(12)]
        assert len(ids) == await seen.backlog() == 12
        with pytest.raises(NotReplicated):
            await producer.send("s0", say(0), replicas=place.replicas + 1)
        assert await seen.backlog() == 13, "it was sent"


async def test_synchronous_client_does_the_same(place: Place):
    def use() -> list[Any]:
        config = Config(**SETTINGS)
        with SyncClient(place.url_of("producer"), config=config) as producer:
            answer = producer.request("s", say(2))
            producer.send_many([("s", say(3)), ("t", say(4))])
            return answer

    async with seeing(place) as seen, at_work(totals, place):
        assert await asyncio.to_thread(use) == [{"type": "total", "total": 2, "number": 2}]
        await seen.drained()
        assert await seen.state("s") == {"total": 5}
        assert await seen.state("t") == {"total": 4}
