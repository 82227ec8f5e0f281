"""What survives the death of a worker, as the harness shows it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.testing.apps import counter, echo, streamer
from wherry.model import Reply, Restarted
from wherry.testing import Harness


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "say", "text": text, **more}


def counts(harness: Harness, scope_id: str) -> list[int]:
    return [(reply.message or {})["count"] for reply in harness.replies(scope_id)]


def test_durable_state_survives():
    with Harness(counter, durable_state=True) as harness:
        harness.request("alice", {"type": "count", "by": 2})
        harness.crash()
        assert harness.state("alice") == {"count": 2}
        assert harness.request("alice", {"type": "count"}) == [{"type": "count", "count": 3}]


def test_message_in_hand_takes_effect_once():
    with Harness(counter, durable_state=True) as harness:
        harness.send("alice", {"type": "count", "takes_s": 3})
        harness.send("alice", {"type": "count", "by": 10})
        harness.advance(2)
        harness.crash()
        harness.advance(10)
        assert harness.state("alice") == {"count": 11}
        assert counts(harness, "alice") == [1, 11]
        assert harness.backlog() == 0
        assert harness.failures == []


def test_dead_worker_releases_nothing():
    handled: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        handled.append(asyncio.get_running_loop().time())

    with Harness(app, lease_s=60, beat_s=10, lifespan="off") as harness:
        harness.crash(wait=False)
        harness.send("alice", say("hi"))
        harness.advance(59)
        assert handled == []
        harness.advance(12)
        assert len(handled) == 1


def test_crash_waits_for_the_takeover():
    with Harness(echo, lease_s=60, beat_s=10) as harness:
        harness.crash()
        assert 60 <= harness.elapsed_s <= 90
        before_s = harness.elapsed_s
        assert harness.request("alice", say("hi")) == [{"type": "echo", "text": "hi"}]
        assert harness.elapsed_s == before_s


def test_without_a_worker_messages_wait():
    with Harness(echo) as harness:
        harness.crash(restart=False)
        harness.send("alice", say("hi"))
        harness.advance(100)
        assert harness.backlog() == 1
        harness.add_worker()
        assert [reply.message for reply in harness.replies("alice")] == [
            {"type": "echo", "text": "hi"}
        ]


def test_stream_says_that_the_answer_begins_anew():
    with Harness(streamer) as harness:
        seen: list[str] = []
        for event in harness.request_stream("alice", say("one two three"), timeout_s=60):
            if isinstance(event, Restarted):
                seen.append("restarted")
            else:
                seen.append((event.message or {})["word"])
            if seen == ["one", "two"]:
                harness.crash()
        assert seen == ["one", "two", "restarted", "one", "two", "three"]
        words = [(reply.message or {})["word"] for reply in harness.replies("alice")]
        assert words == ["one", "two", "three"]


def test_run_until_stops_in_the_middle_of_a_message():
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await asyncio.sleep(1)  # send() has returned
        for word in message["text"].split():
            await send({"type": "word", "word": word})
            await send({"type": "wherry.flush"})
            sent.append(word)
            await asyncio.sleep(0)

    with Harness(app) as harness:
        harness.send("alice", say("a b c d"))
        harness.run_until(lambda: sent == ["a", "b"])
        assert sent == ["a", "b"]
        harness.crash()
        harness.advance(1)
        assert sent == ["a", "b", "a", "b", "c", "d"]
        replies = harness.replies("alice")
        assert [(reply.message or {})["word"] for reply in replies] == ["a", "b", "c", "d"]


def test_application_is_not_told_to_shut_down():
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            kind = (await receive())["type"]
            events.append(kind)
            await send({"type": f"{kind}.complete"})

    with Harness(app) as harness:
        harness.crash()
        assert events == ["lifespan.startup", "lifespan.startup"]


def test_what_a_dying_application_still_does_has_no_effect():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            try:
                await asyncio.sleep(message["takes_s"])
            except asyncio.CancelledError:
                await send({"type": "last words"})
            await send({"type": "done"})

    with Harness(app) as harness:
        harness.send("alice", {"type": "work", "takes_s": 2})
        harness.settle()
        harness.crash()
        harness.advance(2)
        assert [reply.message for reply in harness.replies("alice")] == [{"type": "done"}]


def test_other_workers_take_over():
    with Harness(counter, durable_state=True, workers=3) as harness:
        for number in range(12):
            harness.send(f"s{number}", {"type": "count", "takes_s": 1})
        harness.settle()
        harness.crash(1, restart=False)
        harness.crash(1, restart=False)
        for number in range(12):
            harness.send(f"s{number}", {"type": "count"})
        # What was in hand at two deaths is run alone: one after the other, and others between.
        harness.advance(20)
        assert harness.backlog() == 0
        assert [counts(harness, f"s{number}") for number in range(12)] == [[1, 2]] * 12


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_crashes_leaves_every_effect_once_and_in_order(seed: int):
    chance = random.Random(seed)
    sent: dict[str, int] = {}
    with Harness(counter, durable_state=True, workers=2) as harness:
        for _ in range(25):
            scope_id = f"s{chance.randrange(5)}"
            sent[scope_id] = sent.get(scope_id, 0) + 1
            harness.send(scope_id, {"type": "count", "takes_s": chance.choice([0, 0, 0.5, 4])})
            if chance.random() < 0.3:
                harness.advance(chance.uniform(0, 3))
            if chance.random() < 0.2:
                harness.crash(chance.randrange(2), wait=chance.random() < 0.5)
        harness.advance(100)
        assert harness.backlog() == 0
        for scope_id, count in sent.items():
            assert counts(harness, scope_id) == list(range(1, count + 1))
            assert harness.state(scope_id) == {"count": count}


def test_two_runs_take_the_same_steps():
    def run() -> list[tuple[float, str]]:
        steps: list[tuple[float, str]] = []
        random.seed(7)  # backoffs have jitter

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while True:
                message = await receive()
                steps.append((asyncio.get_running_loop().time(), message["text"]))
                await asyncio.sleep(0.3)

        with Harness(app, workers=2) as harness:
            for number in range(30):
                harness.send(f"s{number % 7}", say(f"{number}"))
                if number % 10 == 5:
                    harness.crash(number % 2)
            harness.advance(10)
        return steps

    assert run() == run()


def test_replies_of_the_first_attempt_are_not_taken_for_the_answer():
    with Harness(streamer) as harness:
        stream = harness.request_stream("alice", say("one two"), timeout_s=60)
        assert isinstance(next(stream), Reply)
        harness.crash()
        assert [type(event) for event in stream] == [Restarted, Reply, Reply]
