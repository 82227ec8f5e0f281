"""An instance that is to end may be told first, and idle instances end by themselves."""

from __future__ import annotations

from typing import Any

from wherry.testing import Harness

Heard = list[tuple[str, str]]


def listener(heard: Heard) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                message = await receive()
                heard.append((scope["scope_id"], message["type"]))
                if message["type"] == "leave":
                    await send({"type": "left"})
                    return
                await send({"type": "answer"})
        finally:
            heard.append((scope["scope_id"], "ended"))

    return application


def test_idle_instance_ends_after_its_time():
    heard: Heard = []
    with Harness(listener(heard), idle_timeout_s=30, lifespan="off") as harness:
        harness.request("alice", {"type": "ask"})
        harness.advance(20)
        assert heard == [("alice", "ask")]
        harness.advance(20)
        assert heard == [("alice", "ask"), ("alice", "ended")]
        harness.request("alice", {"type": "ask"})
        assert heard[2:] == [("alice", "ask")]


def test_instance_is_told_of_its_end_and_what_it_sends_is_written():
    heard: Heard = []
    settings: dict[str, Any] = {"idle_timeout_s": 30, "end_event": "leave", "end_grace_s": 5}
    with Harness(listener(heard), lifespan="off", **settings) as harness:
        harness.request("alice", {"type": "ask"})
        harness.advance(60)
        harness.settle()
        assert heard == [("alice", "ask"), ("alice", "leave"), ("alice", "ended")]
        kinds = [reply.message["type"] for reply in harness.replies("alice") if reply.message]
        assert kinds == ["answer", "left"]


def test_instance_that_does_not_leave_when_told_is_cancelled_after_the_grace():
    heard: Heard = []
    settings: dict[str, Any] = {"idle_timeout_s": 30, "end_event": "stay", "end_grace_s": 5}
    with Harness(listener(heard), lifespan="off", **settings) as harness:
        harness.request("alice", {"type": "ask"})
        harness.advance(60)
        assert heard == [("alice", "ask"), ("alice", "stay"), ("alice", "ended")]


def test_without_a_type_nothing_is_said():
    heard: Heard = []
    with Harness(listener(heard), lifespan="off") as harness:
        harness.request("alice", {"type": "ask"})
    assert heard == [("alice", "ask"), ("alice", "ended")]
