"""Messages take effect once and in order; those that fail are tried again, then put aside."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.conformance.parts import at_work, check, client, seeing, totals
from tests.e2e.rig import until
from tests.stores import Place
from wherry import MessageFailed, Restarted

LOAD = {f"s{n}": list(range(n, 400, 20)) for n in range(20)}


async def test_each_message_takes_effect_once_and_in_order(place: Place):
    """Instances are ended all the time, as there is room for few; two workers share."""
    few: dict[str, Any] = {"max_applications": 3}
    async with seeing(place) as seen:
        await seen.send_many([(scope, n) for n in range(400) for scope in [f"s{n % 20}"]])
        async with at_work(totals, place, **few), at_work(totals, place, **few):
            await check(seen, LOAD)


async def test_failed_message_is_tried_again_and_put_aside_and_its_scope_goes_on(place: Place):
    tries: Counter[int] = Counter()
    is_mended = False

    async def brittle(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            number = message["number"]
            tries[number] += 1
            await send({"type": "done", "number": number})
            if (number == 1 and tries[1] < 3) or (number == 2 and not is_mended):
                raise ValueError("not yet")

    async with (
        seeing(place) as seen,
        client(place) as producer,
        client(place, "operator") as op,
        at_work(brittle, place, max_attempts=3),
    ):
        for number in (0, 1, 3):
            await producer.send("s", {"type": "n", "number": number})
        with pytest.raises(MessageFailed, match="ValueError: not yet"):
            await producer.request("s", {"type": "n", "number": 2})
        await producer.send("s", {"type": "n", "number": 4})
        await seen.drained()
        assert tries == {0: 1, 1: 3, 3: 1, 2: 3, 4: 1}
        assert await seen.numbers("s") == [0, 1, 3, 4]
        partition = seen.partition("s")
        [letter] = await op.dead_letters.page(partition)
        assert (letter.scope_id, letter.attempts) == ("s", 3)
        assert letter.message == {"type": "n", "number": 2}
        is_mended = True
        [entry_id] = await op.dead_letters.replay(partition, letter.letter_id)
        assert entry_id
        await until(lambda: _count_is(seen, 6))
        assert await seen.numbers("s") == [0, 1, 3, 4, 2]
        assert await op.dead_letters.page(partition) == []


async def _count_is(seen: Any, count: int) -> bool:
    """Replies, and the one that tells of the error."""
    return len(await seen.replies("s")) == count


async def test_streamed_replies_are_written_before_the_message_is_finished(place: Place):
    gate = asyncio.Event()
    tries = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal tries
        await receive()
        tries += 1
        await send({"type": "part", "number": 1})
        await gate.wait()
        if tries == 1:
            raise ValueError("in the midst of it")
        await send({"type": "part", "number": 2})

    async with seeing(place), at_work(slow, place), client(place) as producer:
        said: list[object] = []
        async for event in producer.request_stream("s", {"type": "go"}):
            gate.set()
            if isinstance(event, Restarted):
                said.append("anew")
            elif event.message is not None:
                said.append(event.message["number"])
        assert said == [1, "anew", 1, 2]


async def test_expired_message_is_not_handled(place: Place):
    async with seeing(place) as seen, client(place) as producer:
        await producer.send("s", {"type": "n", "number": 1}, expires_s=0.001)
        await producer.send("s", {"type": "n", "number": 2})
        await asyncio.sleep(0.01)  # what must pass is time
        async with at_work(totals, place):
            await seen.drained()
            assert await seen.state("s") == {"total": 2}


async def test_state_that_went_back_in_time_ends_the_instance(place: Place):
    """As after a failover: what is remembered must not be built upon."""
    async with seeing(place) as seen, at_work(totals, place):
        key = seen.keys.state(seen.partition("a"), "a")
        await seen.send("a", 1)
        await seen.drained()
        state, version = await seen.link.call("HMGET", key, "state", "v")
        await seen.send("a", 10)
        await seen.drained()
        await seen.link.call("HSET", key, "state", state, "v", version)
        await seen.send("a", 100)
        await seen.drained()
        assert await seen.state("a") == {"total": 101}
