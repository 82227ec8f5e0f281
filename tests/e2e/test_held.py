"""``on_dead_letter = "hold"``: the scope of a message that failed too often waits for people."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.rig import Notes, Rig, rig, until, working
from wherry import Client, MessageFailed, SyncClient

HELD = "a message that failed too often holds its scope until it is retried or dropped"
HOLDING: dict[str, Any] = {"on_dead_letter": "hold", "max_attempts": 2}


class Fragile:
    """Answers messages; raises for those whose number is in ``bad``."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["number"] in self.bad:
                raise ValueError("not now")
            await send({"type": "t", "number": message["number"]})


async def held_ids(client: Client, seen: Rig, scope: str) -> list[str]:
    return [one.entry_id for one in await client.dead_letters.held(seen.partition(scope))]


@pytest.mark.parametrize("drops", [False, True])
async def test_held_scope_waits_and_others_go_on_until_it_is_released(redis_url: str, drops: bool):
    """Far more wait behind the head than the window holds, and the partition is still read."""
    app, hooks = Fragile(2), Notes()
    small: dict[str, Any] = {"in_flight": 50, "in_flight_per_partition": 50, "partitions": 1}
    async with (
        rig(redis_url, partitions=1) as seen,
        Client(redis_url, namespace="test") as client,
        working(app, redis_url, hooks=hooks, **HOLDING, **small) as worker,
    ):
        await seen.send_many([("a", n) for n in range(1, 300)])
        (bad,) = await until(lambda: held_ids(client, seen, "a"))
        await seen.send_many([(f"s{n % 10}", n) for n in range(1000, 1300)])
        for n in range(10):
            await seen.answered(f"s{n}", 30)
        assert await seen.numbers("a") == [1]
        (holding,) = worker._holdings.all()
        assert holding.ledger.in_flight == 0
        assert holding.deferred.count == 298
        app.bad.clear()
        letters = client.dead_letters
        release = letters.drop_held if drops else letters.retry_held
        assert await release(0, bad)
        assert not await release(0, bad)
        await seen.drained()
        assert await seen.numbers("a") == [1, *([] if drops else [2]), *range(3, 300)]
        assert hooks.count(HELD) == 1
        assert await seen.dead() == []
        assert await seen.leftovers() == set()


async def test_held_scope_stays_held_with_its_next_owner(redis_url: str):
    app, hooks = Fragile(1), Notes()
    async with rig(redis_url) as seen, Client(redis_url, namespace="test") as client:
        async with working(app, redis_url, **HOLDING):
            await seen.send_many([("a", 1), ("a", 2)])
            (bad,) = await until(lambda: held_ids(client, seen, "a"))
        app.bad.clear()
        async with working(app, redis_url, hooks=hooks, **HOLDING) as worker:
            await seen.send("b", 1)
            await seen.answered("b", 1)
            # A reconnect, say: everything is read anew.
            for holding in worker._holdings.all():
                holding.deferred.clear()
                holding.ledger.rewind()
            worker._holdings.changed.set()
            await seen.send("a", 3)
            await until(lambda: sum(one.deferred.count for one in worker._holdings.all()) == 3)
            assert [one.error for one in await seen.replies("a")] == ["Held: ValueError: not now"]
            assert await held_ids(client, seen, "a") == [bad]
            assert await client.dead_letters.retry_held(seen.partition("a"), bad)
            await seen.drained()
        assert await seen.numbers("a") == [1, 2, 3]
        assert hooks.count(HELD) == 0


async def test_waiting_sender_is_told_and_the_answer_may_still_come(redis_url: str):
    app = Fragile(1)
    async with (
        rig(redis_url) as seen,
        Client(redis_url, namespace="test") as client,
        working(app, redis_url, **HOLDING),
    ):
        with pytest.raises(MessageFailed, match="Held: ValueError: not now") as failed:
            await client.request("a", {"type": "n", "number": 1})
        app.bad.clear()
        assert await client.dead_letters.retry_held(seen.partition("a"), failed.value.entry_id)
        await seen.drained()
        events = [one async for one in client.replies("a")]
        kinds = [type(one).__name__ for one in events]
        assert kinds == ["Reply", "Restarted", "Reply"], "the answer begins anew"


async def test_message_that_fails_again_is_held_again(redis_url: str):
    hooks = Notes()
    async with (
        rig(redis_url) as seen,
        Client(redis_url, namespace="test") as client,
        working(Fragile(1), redis_url, hooks=hooks, **HOLDING),
    ):
        bad = await seen.send("a", 1)
        for times in (1, 2, 3):
            await until(lambda times=times: hooks.count(HELD) == times)
            assert await until(lambda: held_ids(client, seen, "a")) == [bad]
            assert await client.dead_letters.retry_held(seen.partition("a"), bad)
        assert await seen.backlog() == 1


async def test_dead_letters_of_a_scope_go_back_in_order_behind_what_waits(redis_url: str):
    app, gate = Fragile(1, 2, 4), asyncio.Event()

    async def gated(scope: Any, receive: Any, send: Any) -> None:
        if scope["scope_id"] == "a" and not app.bad:
            await gate.wait()
        await app(scope, receive, send)

    async with (
        rig(redis_url) as seen,
        Client(redis_url, namespace="test") as client,
        working(gated, redis_url, max_attempts=1, idle_timeout_s=0.01) as worker,
    ):
        other = next(f"s{n}" for n in range(99) if seen.partition(f"s{n}") == seen.partition("a"))
        first, second = [await client.send("a", {"type": "n", "number": n}) for n in (1, 2)]
        await seen.send_many([("a", 3), ("a", 4), (other, 1)])
        await seen.drained()
        await until(lambda: "a" not in worker.application_instances)
        app.bad.clear()
        await seen.send("a", 5)
        letters = await client.dead_letters.page(seen.partition("a"))
        numbers = [one.message and one.message["number"] for one in letters if one.scope_id == "a"]
        assert (numbers, len(letters)) == ([1, 2, 4], 4)
        assert await client.dead_letters.replay_scope("a") == 3
        assert await client.dead_letters.replay_scope("a") == 0
        gate.set()
        await seen.drained()
        assert await seen.numbers("a") == [3, 5, 1, 2, 4]
        (kept,) = await seen.dead()
        assert kept["s"] == other.encode()
        assert {first, second} == {one.entry_id for one in letters[:2]}


async def test_pages_of_dead_letters(redis_url: str):
    async with rig(redis_url, partitions=1) as seen:
        async with working(Fragile(*range(25)), redis_url, max_attempts=1, partitions=1):
            ids = await seen.send_many([(f"s{n}", n) for n in range(25)])
            await seen.drained()

        def browse() -> None:
            with SyncClient(redis_url, namespace="test") as client:
                letters, after = client.dead_letters, "0-0"
                assert letters.partitions() == range(1)
                found = []
                while page := letters.page(0, after=after, count=10):
                    found += page
                    after = page[-1].letter_id
                assert sorted(one.entry_id for one in found) == sorted(ids)
                one, two, *_ = found
                assert letters.get(0, one.letter_id) == one
                assert letters.drop(0, one.letter_id) == 1
                assert letters.drop(0, one.letter_id) == letters.drop(0) == 0
                assert letters.get(0, one.letter_id) is None
                assert letters.replay(0, one.letter_id) == [None]
                (again,) = letters.replay(0, two.letter_id)
                assert again
                assert letters.replay_scope(two.scope_id) == 0
                assert letters.held(0) == []
                assert letters.get_held(0, ids[0]) is None
                assert letters.unix_ms() > 0
                assert not letters.retry_held(0, ids[0])
                assert not letters.drop_held(0, ids[0])

        await asyncio.to_thread(browse)
