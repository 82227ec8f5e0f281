"""Durable state, and the guards that keep it and the replies exactly once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgpack
import pytest

from tests.e2e.rig import QUICK, Notes, crash, rig, until, working
from wherry import Config, Worker

DURABLE: dict[str, Any] = {"durable_state": True}


async def totals(scope: Any, receive: Any, send: Any) -> None:
    """Add the numbers up, in memory and in the durable state; both must say the same."""
    durable = scope["durable"]
    total = durable.get("total", 0)
    while True:
        message = await receive()
        total += message["number"]
        durable["total"] = durable.get("total", 0) + message["number"]
        assert durable["total"] == total
        await send({"type": "total", "number": total})


def running_totals(numbers: list[int]) -> list[int]:
    return [sum(numbers[: n + 1]) for n in range(len(numbers))]


async def test_state_and_replies_go_on_with_the_next_instance_and_the_next_worker(redis_url: str):
    async with rig(redis_url) as seen:
        for part in range(3):
            async with working(totals, redis_url, **DURABLE) as worker:
                await seen.send_many([("a", n) for n in range(10 * part, 10 * part + 5)])
                await seen.drained()
                worker.delete_application_instance("a")
                await seen.send_many([("a", n) for n in range(10 * part + 5, 10 * part + 10)])
                await seen.drained()
        assert await seen.numbers("a") == running_totals(list(range(30)))
        assert await seen.state("a") == {"total": sum(range(30))}


async def test_one_message_function_has_its_state(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        scope["durable"]["total"] = scope["durable"].get("total", 0) + message["number"]
        await send({"type": "total", "number": scope["durable"]["total"]})

    async with rig(redis_url) as seen, working(app, redis_url, **DURABLE):
        await seen.send_many([(f"s{n % 5}", n) for n in range(500)])
        await seen.drained()
        for scope in range(5):
            numbers = list(range(scope, 500, 5))
            assert await seen.numbers(f"s{scope}") == running_totals(numbers)
            assert await seen.state(f"s{scope}") == {"total": sum(numbers)}


async def test_crash_in_the_middle_repeats_and_loses_nothing(redis_url: str):
    """The run is cancelled abruptly: nothing is handed on, the leases run out."""
    numbers = list(range(1, 2001))
    async with rig(redis_url) as seen:
        await seen.send_many([(f"s{n % 20}", n) for n in numbers])
        for enough in (300, 900):
            worker = Worker(totals, redis_url, Config(**QUICK | DURABLE), hooks=Notes())
            task = asyncio.create_task(worker.arun())
            await until(partial(_is_below, seen, 2000 - enough))
            await crash(task)
        async with working(totals, redis_url, **DURABLE):
            await seen.drained()
        for scope in range(20):
            mine = [n for n in numbers if n % 20 == scope]
            assert await seen.numbers(f"s{scope}") == running_totals(mine)
            assert await seen.state(f"s{scope}") == {"total": sum(mine)}


async def _is_below(seen: Any, count: int) -> bool:
    return await seen.backlog() < count


async def test_failed_attempt_discards_what_it_did_to_the_state(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            scope["durable"].setdefault("seen", []).append(message["number"])
            await send({"type": "t", "number": len(scope["durable"]["seen"])})
            if message["wherry"]["attempt"] < 3:
                raise ValueError("no")

    async with rig(redis_url) as seen, working(app, redis_url, **DURABLE):
        await seen.send_many([("a", 1), ("a", 2)])
        await seen.drained()
        assert await seen.state("a") == {"seen": [1, 2]}
        assert await seen.numbers("a") == [1, 2]


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_state_that_is_too_large_fails_the_attempt(redis_url: str, is_stubborn: bool):
    """Also under a loop that catches everything and goes on: it must not spin."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            try:
                message = await receive()
                if message["number"] == 2:
                    scope["durable"]["x"] = "x" * 5000
                else:
                    scope["durable"][str(message["number"])] = 1
                await send({"type": "t", "number": message["number"]})
            except Exception:
                if not is_stubborn:
                    raise

    async with (
        rig(redis_url) as seen,
        working(app, redis_url, state_bytes=1000, max_attempts=2, **DURABLE),
    ):
        await seen.send_many([("a", 1), ("a", 2), ("a", 3)])
        await seen.drained()
        (letter,) = await seen.dead()
        assert b"more than 1000" in letter["error"]
        assert letter["attempts"] == b"2"
        assert await seen.state("a") == {"1": 1, "3": 1}
        assert await seen.numbers("a") == [1, 3]


@pytest.mark.parametrize("odd", [{"x": object()}, {"x": float("nan")}, {"x": 2**70}, ["a"], 5])
async def test_state_that_cannot_be_kept_fails_the_attempt(redis_url: str, odd: Any):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        scope["durable"] = {"fine": 1} if message["number"] == 2 else odd

    async with rig(redis_url) as seen, working(app, redis_url, max_attempts=1, **DURABLE):
        await seen.send_many([("a", 1), ("a", 2)])
        await seen.drained()
        assert len(await seen.dead()) == 1
        assert await seen.state("a") == {"fine": 1}


async def test_emptied_state_deletes_the_key(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["number"] == 2:
                scope["durable"].clear()
            else:
                scope["durable"][str(message["number"])] = 1

    async with rig(redis_url) as seen, working(app, redis_url, **DURABLE) as worker:
        key = seen.keys.state(seen.partition("a"), "a")
        await seen.send_many([("a", 1), ("a", 2)])
        await seen.drained()
        assert await seen.link.call("EXISTS", key) == 0
        await seen.send("a", 3)
        await seen.drained()
        assert await seen.state("a") == {"3": 1}
        await seen.send_many([("a", 2), ("a", 2), ("a", 4)])
        await seen.drained()
        worker.delete_application_instance("a")
        await seen.send("a", 5)
        await seen.drained()
        assert await seen.state("a") == {"4": 1, "5": 1}


async def test_state_that_went_back_in_time_ends_the_instance(redis_url: str):
    """Redis lost writes under a living instance: it must not build on what it remembers."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await totals(scope, receive, send)

    async with rig(redis_url) as seen, working(app, redis_url, **DURABLE):
        key = seen.keys.state(seen.partition("a"), "a")
        await seen.send("a", 1)
        await seen.drained()
        before = await seen.link.call("HMGET", key, "state", "v")
        await seen.send("a", 10)
        await seen.drained()
        await seen.link.call("HSET", key, "state", before[0], "v", before[1])
        await seen.send_many([("a", 100), ("a", 1000)])
        await seen.drained()
        assert await seen.numbers("a") == [1, 11, 101, 1101]
        assert await seen.state("a") == {"total": 1101}
        assert len(scopes) == 2


@pytest.mark.parametrize("kind", ["out", "inbox", "state"])
async def test_key_of_the_wrong_type_buries_the_message_and_others_go_on(redis_url: str, kind: str):
    hooks = Notes()
    async with rig(redis_url) as seen, working(totals, redis_url, hooks=hooks, **DURABLE):
        partition = seen.partition("a")
        key = {
            "out": seen.keys.replies(partition, "a"),
            "inbox": seen.keys.inbox(partition, "box"),
            "state": seen.keys.state(partition, "a"),
        }[kind]
        await seen.send("a", 1)
        await seen.drained()
        await seen.link.call("SET", key, "mine")
        others = [f"s{n}" for n in range(40)]
        await seen.send_many([(scope, 1) for scope in others])
        entry = await seen.send("a", 2, r="box")
        await seen.send_many([(scope, 2) for scope in others])
        await seen.drained()
        for scope in others:
            assert await seen.numbers(scope) == [1, 3]
        letters = await seen.dead()
        assert [letter["id"].decode() for letter in letters] == [entry]
        assert await seen.link.call("GET", key) == b"mine"
        if kind != "inbox":
            (told,) = await seen.replies("a", inbox="box")
            assert told.error is not None
            assert key in told.error or "WRONGTYPE" in told.error
        await seen.link.call("DEL", key)
        await seen.send("a", 3)
        await seen.drained()
        assert len(await seen.dead()) == 1
        assert hooks.count("a commit was not done") < 10


async def test_greeting_onto_a_key_of_the_wrong_type_does_not_go_round(redis_url: str):
    """What is sent before the first message has no cause that could be buried."""
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send({"type": "hello"})
        while True:
            await receive()

    async with rig(redis_url) as seen, working(app, redis_url):
        key = seen.keys.replies(seen.partition("a"), "a")
        await seen.link.call("SET", key, "mine")
        await seen.send_many([("a", 1), ("a", 2)])
        await seen.drained()
        assert len(await seen.dead()) <= 2
        assert calls <= 4


async def test_entry_that_vanishes_under_the_instance_has_no_effect(redis_url: str):
    """Somebody deleted it: what was done in its name is ahead of the truth."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        durable = scope["durable"]
        while True:
            message = await receive()
            durable["total"] = durable.get("total", 0) + message["number"]
            if message["number"] == 10:
                await gate.wait()
            await send({"type": "t", "number": durable["total"]})

    async with rig(redis_url) as seen, working(app, redis_url, **DURABLE) as worker:
        await seen.send("a", 1)
        entry = await seen.send("a", 10)
        await seen.send("a", 100)
        await until(lambda: "a" in worker.application_instances)
        await until(lambda: worker.application_instances["a"]["input_queue"].qsize() == 1)
        await seen.answered("a", 1)
        await seen.link.call("XDEL", seen.input("a"), entry)
        gate.set()
        await seen.drained()
        assert await seen.numbers("a") == [1, 101]
        assert await seen.state("a") == {"total": 101}


async def test_states_of_many_scopes_are_loaded_together(redis_url: str):
    async with rig(redis_url) as seen:
        async with working(totals, redis_url, **DURABLE):
            await seen.send_many([(f"s{n}", n) for n in range(400)])
            await seen.drained()
        await seen.send_many([(f"s{n}", 1) for n in range(400)])
        before = await _calls_of(seen, "hmget")
        async with working(totals, redis_url, **DURABLE):
            await seen.drained()
        assert await _calls_of(seen, "hmget") - before < 1000, "one read for each, not more"
        for number in range(400):
            assert await seen.numbers(f"s{number}") == [number, number + 1]


async def _calls_of(seen: Any, command: str) -> int:
    text = (await seen.link.call("INFO", "commandstats")).decode()
    for line in text.splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


async def test_unreadable_state_fails_the_message_and_not_the_worker(redis_url: str):
    async with rig(redis_url) as seen, working(totals, redis_url, max_attempts=2, **DURABLE):
        key = seen.keys.state(seen.partition("a"), "a")
        await seen.link.call("HSET", key, "state", b"\xc1", "v", "1-1")
        await seen.send_many([("a", 1), ("b", 1)])
        await seen.drained()
        assert len(await seen.dead()) == 1
        assert await seen.numbers("b") == [1]
        await seen.link.call("HSET", key, "state", msgpack.packb({"total": 5}), "v", "1-1")
        await seen.send("a", 1)
        await seen.drained()
        assert await seen.state("a") == {"total": 6}
