"""What a worker counts of what it does."""

from __future__ import annotations

from typing import Any

from tests.e2e.rig import Notes, echo, rig, until, working


async def moody(scope: Any, receive: Any, send: Any) -> None:
    """Answer as often as the number says; fail for negative ones."""
    while True:
        message = await receive()
        if message["number"] < 0:
            raise ValueError("planned")
        for _ in range(message["number"]):
            await send({"type": "echo"})


async def test_outcomes_and_replies_are_counted(redis_url: str):
    async with rig(redis_url) as seen, working(moody, redis_url, max_attempts=3) as worker:
        await seen.send_many([("one", 1)] * 7 + [("none", 0)] * 2 + [("many", 5)])
        await seen.send("streamed", 3, w=2)
        await seen.send("bad", -1)
        await seen.send("late", 1, x=1)
        await seen.send_fields("odd", "s", "odd", "m", b"\xc1")
        await seen.drained()
        counted = worker.tallies
        assert (counted.done, counted.replies) == (7 + 2 + 1 + 1, 7 + 5 + 3)
        assert (counted.retried, counted.dead, counted.expired, counted.held) == (2, 2, 1, 0)
        assert 0 < counted.commits <= 20
        assert (counted.claims, counted.takeovers, counted.handoffs) == (seen.partitions, 0, 0)
    assert (counted.handoffs, counted.fenced) == (seen.partitions, 0)


async def test_what_holds_its_scope_is_counted(redis_url: str):
    settings = {"max_attempts": 1, "on_dead_letter": "hold"}
    async with rig(redis_url) as seen, working(moody, redis_url, **settings) as worker:
        await seen.send("bad", -1)
        await until(lambda: worker.tallies.held)
        assert (worker.tallies.held, worker.tallies.dead, worker.tallies.done) == (1, 0, 0)


async def test_idle_instances_that_are_ended_to_make_room_are_counted(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url, max_applications=2) as worker:
        for number in range(5):
            await seen.send(f"s{number}", number)
            await seen.answered(f"s{number}", 1)
        await until(lambda: worker.tallies.evictions == 3)


async def test_takeovers_and_refused_calls_are_counted(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url, hooks=Notes()) as worker:
        lease = seen.keys.lease(seen.partition("a"))
        await seen.link.call("HSET", lease, "owner", "somebody", "token", "9:x", "expiry", 1)
        await seen.send("a", 1)
        await seen.answered("a", 1)
        await until(lambda: worker.tallies.takeovers)
        assert worker.tallies.takeovers == 1
        assert worker.tallies.claims == seen.partitions + 1
        assert worker.tallies.fenced <= 1
