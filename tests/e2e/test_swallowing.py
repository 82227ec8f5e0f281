"""Applications that swallow their cancellation: others are served, elsewhere if need be."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.rig import Notes, Rig, rig, until, working
from wherry import Worker

NEVER: dict[str, Any] = {"end_timeout_s": 0.1, "partitions": 2, "concurrency": 3}


class Swallowing:
    """Sits in the first message of scope "a" whatever happens; answers all others.

    Attributes:
        tries: how often that message was begun.
        released: lets it end.
    """

    def __init__(self) -> None:
        self.tries = 0
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if scope["scope_id"] == "a" and message["number"] == 1:
                self.tries += 1
                while self.tries == 1 and not self.released.is_set():
                    try:
                        await self.released.wait()
                    except asyncio.CancelledError:
                        pass
            await send({"type": "t", "number": message["number"]})


def has(worker: Worker, partition: Any) -> bool:
    return worker._holdings.get(partition) is not None


async def test_partition_of_a_message_that_neither_ends_nor_lets_go_is_handed_on(redis_url: str):
    app, hooks = Swallowing(), Notes()
    settings: dict[str, Any] = NEVER | {"handler_timeout_s": 0.2}
    async with (
        rig(redis_url, partitions=2) as seen,
        working(app, redis_url, hooks=hooks, **settings) as first,
    ):
        stuck = seen.partition("a")
        await seen.send_many([("a", 1), ("a", 2)])
        await until(lambda: app.tries == 1)
        async with working(app, redis_url, **settings) as second:
            await seen.drained()
            assert has(second, stuck)
            assert not has(first, stuck)
            assert await seen.numbers("a") == [1, 2]
            assert first._holdings.avoided == {stuck}
            assert first._tracked._turns.busy == 0, "who was given up is at work for nobody"
            assert hooks.count("an application does not end when it is cancelled") == 1
            assert not hooks.count("has no worker"), "the other took it"
        app.released.set()
        await until(lambda: has(first, stuck))
        await seen.send("a", 3)
        await seen.drained()
        assert await seen.numbers("a") == [1, 2, 3]


async def test_partition_that_was_lost_is_not_claimed_while_its_instance_lives(redis_url: str):
    app = Swallowing()
    async with (
        rig(redis_url, partitions=2) as seen,
        working(app, redis_url, **NEVER) as first,
    ):
        stuck = seen.partition("a")
        await seen.send("a", 1)
        await until(lambda: app.tries == 1)
        holding = first._holdings.get(stuck)
        await seen.link.call("DEL", seen.keys.lease(stuck))
        await until(lambda: holding and holding.is_lost)
        await until(lambda: first._holdings.avoided == {stuck})
        await until(lambda: not has(first, stuck))
        async with working(app, redis_url, **NEVER):
            await seen.drained()
        assert await seen.numbers("a") == [1]
        app.released.set()
        await until(lambda: has(first, stuck))


UNSERVED = "a partition has no worker"
SERVED = "a partition has a worker again"


async def _alone(seen: Rig, app: Swallowing, hooks: Notes) -> None:
    """The one worker there is has given up on a message, and served what it still holds."""
    other = next(f"s{n}" for n in range(99) if seen.partition(f"s{n}") != seen.partition("a"))
    await seen.send_many([("a", 1), ("a", 2)])
    await until(lambda: hooks.count(UNSERVED))
    for number in range(3):
        await seen.send(other, number)
        await seen.answered(other, number + 1)
    [told] = [data for event, data in hooks.said if UNSERVED in event]
    assert told == {"partition": seen.partition("a")}
    assert await seen.numbers("a") == []
    assert not hooks.count(SERVED)


async def test_partition_without_a_worker_is_told_and_served_when_the_instance_ends(redis_url: str):
    app, hooks = Swallowing(), Notes()
    async with (
        rig(redis_url, partitions=2) as seen,
        working(app, redis_url, hooks=hooks, **NEVER, handler_timeout_s=0.2),
    ):
        await _alone(seen, app, hooks)
        app.released.set()
        await seen.drained()
        assert await seen.numbers("a") == [1, 2]
        await until(lambda: hooks.count(SERVED) == 1)
        assert hooks.count(UNSERVED) == 1


async def test_partition_without_a_worker_is_served_by_the_next_that_joins(redis_url: str):
    app, hooks = Swallowing(), Notes()
    settings: dict[str, Any] = NEVER | {"handler_timeout_s": 0.2}
    async with (
        rig(redis_url, partitions=2) as seen,
        working(app, redis_url, hooks=hooks, **settings) as first,
    ):
        await _alone(seen, app, hooks)
        async with working(app, redis_url, **settings) as second:
            await seen.drained()
            assert await seen.numbers("a") == [1, 2]
            assert has(second, seen.partition("a"))
            await until(lambda: hooks.count(SERVED) == 1)
            assert not has(first, seen.partition("a"))
            assert hooks.count(UNSERVED) == 1
        app.released.set()


async def test_evicted_instance_that_does_not_end_gives_its_partition_away(redis_url: str):
    living: list[str] = []
    released = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        living.append(scope["scope_id"])
        while not released.is_set():
            try:
                await send(await receive())
            except asyncio.CancelledError:
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    pass

    settings: dict[str, Any] = NEVER | {"max_applications": 1}
    async with (
        rig(redis_url, partitions=2) as seen,
        working(app, redis_url, **settings) as first,
    ):
        stuck = seen.partition("a")
        other = next(f"s{n}" for n in range(99) if seen.partition(f"s{n}") != stuck)
        await seen.send("a", 1)
        await seen.answered("a", 1)
        await seen.send(other, 1)
        await seen.answered(other, 1)
        await until(lambda: not has(first, stuck))
        async with working(app, redis_url, **settings) as second:
            await until(lambda: has(second, stuck))
            await seen.send("a", 2)
            await seen.answered("a", 2)
            released.set()
        assert living == ["a", other, "a"]
