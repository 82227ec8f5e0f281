"""A message that takes too long has failed an attempt; its scope waits, others do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wherry import HandlerTimeout, MessageFailed
from wherry.testing import Harness


def sleeper(tried: list[int]) -> Any:
    """Sleeps for as long as a message says, on the attempts that it names."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            attempt = message["wherry"]["attempt"]
            tried.append(attempt)
            if attempt <= message["slow_attempts"]:
                await asyncio.sleep(1000)
            await send({"type": "done", "attempt": attempt})

    return application


def test_slow_attempt_fails_and_the_next_one_answers():
    tried: list[int] = []
    with Harness(sleeper(tried), handler_timeout_s=10, lifespan="off") as harness:
        harness.send("alice", {"type": "work", "slow_attempts": 1})
        harness.send("alice", {"type": "work", "slow_attempts": 0})
        harness.advance(9)
        assert tried == [1]
        harness.advance(5)
        harness.settle()
        answers = [reply.message for reply in harness.replies("alice")]
        assert answers == [{"type": "done", "attempt": 2}, {"type": "done", "attempt": 1}]
        assert [type(failure.error) for failure in harness.failures] == [HandlerTimeout]


def test_message_that_is_always_slow_becomes_a_dead_letter():
    tried: list[int] = []
    settings: dict[str, Any] = {"handler_timeout_s": 2, "max_attempts": 3}
    with Harness(sleeper(tried), lifespan="off", **settings) as harness:
        with pytest.raises(MessageFailed, match="not finished within 2 s"):
            harness.request("alice", {"type": "work", "slow_attempts": 9}, timeout_s=60)
        assert tried == [1, 2, 3]
        assert len(harness.dead_letters("alice")) == 1
        assert harness.request("alice", {"type": "work", "slow_attempts": 0}) != []


def test_a_message_in_time_is_left_alone():
    tried: list[int] = []
    with Harness(sleeper(tried), handler_timeout_s=10, lifespan="off") as harness:
        harness.request("alice", {"type": "work", "slow_attempts": 0})
        harness.advance(30)
        assert tried == [1]
        assert harness.failures == []
