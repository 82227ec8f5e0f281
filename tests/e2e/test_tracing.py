"""One trace from the producer over the worker to the reader, with OpenTelemetry and without."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from typing import Any

import pytest

from tests.e2e.rig import Notes, rig, working
from tests.examples.processes import ROOT
from tests.test_tracing import PARENT, TRACE_ID
from wherry import Client
from wherry.model import Reply

HEADERS = {"traceparent": PARENT, "tracestate": "a=1", "user": "x"}
CARRIED = {"traceparent": PARENT, "tracestate": "a=1"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "bad":
            raise ValueError("no")
        if message["type"] == "stream":
            await send({"type": "wherry.flush"})
        for _ in range(message.get("replies", 1)):
            await send({"type": "done", "headers": message["wherry"]["headers"]})


@pytest.mark.parametrize(
    "message",
    [
        {"type": "x"},
        {"type": "x", "replies": 3},
        {"type": "stream", "replies": 2},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_context_goes_into_every_reply(redis_url: str, message: dict[str, Any], stream: bool):
    async with working(app, redis_url), Client(redis_url, namespace="test") as client:
        count = message.get("replies", 1)
        cause = await client.send("s", message, headers=HEADERS, stream=stream)
        await client.send("s", {"type": "x"})
        if stream:
            events = client.replies("s", follow=True, cause=cause)
            replies = [one async for one in events if isinstance(one, Reply)]
        else:
            replies = await first(client, "s", count + 1)
        traced = [one for one in replies if one.cause == cause]
        assert len([one for one in traced if one.message]) == count
        assert all(one.headers == CARRIED for one in traced)
        assert all(one.message["headers"] == HEADERS for one in traced if one.message)
        assert all(one.headers == {} for one in replies if one.cause != cause)


async def first(client: Client, scope: str, count: int) -> list[Reply]:
    found: list[Reply] = []
    async with asyncio.timeout(15):
        async for one in client.replies(scope, follow=True):
            assert isinstance(one, Reply)
            found.append(one)
            if len(found) == count:
                return found
    raise AssertionError(found)


async def test_context_goes_into_what_is_told_of_a_failure_and_into_its_log(redis_url: str):
    hooks = Notes()
    async with (
        working(app, redis_url, hooks=hooks, max_attempts=1) as worker,
        Client(redis_url, namespace="test") as client,
        rig(redis_url),
    ):
        await client.send("s", {"type": "bad"}, headers=HEADERS)
        [told] = await first(client, "s", 1)
        assert told.error == "ValueError: no"
        assert told.headers == CARRIED
        assert worker.tallies.dead == 1
    [line] = [data for event, data in hooks.said if "went to the dead letters" in event]
    assert line["trace"] == TRACE_ID


@pytest.fixture
def traced(redis_url: str) -> Any:
    """What the process with a tracer has printed."""

    async def run() -> Any:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.e2e.tracing", redis_url),
            cwd=ROOT,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out) | {"log": [json.loads(line) for line in err.splitlines()]}

    return asyncio.run(run())


def test_spans_of_one_message_belong_together(traced: Any):
    spans = traced["spans"]
    [caller] = [one for one in spans if one["name"] == "caller"]
    sent = [one for one in spans if one["name"] == "send test"]
    handled = {
        (one["attributes"]["wherry.scope"], one["attributes"]["wherry.attempt"], number): one
        for number, one in enumerate(spans)
        if one["name"] == "process test"
    }
    assert {one["kind"] for one in sent} == {"PRODUCER"}
    assert {one["kind"] for one in handled.values()} == {"CONSUMER"}
    by_scope = {one["attributes"]["wherry.scope"]: one for one in sent}
    assert by_scope.keys() == {"asked", "retried", "alone", "cut off"}
    for (scope, attempt, _), one in handled.items():
        cause = by_scope.get(scope, caller)  # many have one cause, and no span each
        assert (one["trace"], one["parent"]) == (cause["trace"], cause["span"])
        assert one["status"] == ("ERROR" if (scope, attempt) == ("retried", 1) else "UNSET")
        assert one["attributes"]["messaging.message.id"]
    assert by_scope["asked"]["parent"] == caller["span"]
    assert by_scope["alone"]["parent"] == ""
    assert len(handled) == 8
    # Of a message that was cut off by a lost lease the span is ended, too.
    assert len([scope for scope, _, _ in handled if scope == "cut off"]) == 2
    work = [one for one in spans if one["name"] == "work"]
    assert {one["parent"] for one in work} == {one["span"] for one in handled.values()}


def test_replies_and_messages_have_the_context_of_the_handling(traced: Any):
    handled = {one["span"]: one for one in traced["spans"] if one["name"] == "process test"}
    for scope, replies in traced["replies"].items():
        for reply in replies:
            parent = reply["headers"]["traceparent"]
            _, trace_id, span_id, _ = parent.split("-")
            assert handled[span_id]["trace"] == trace_id
            assert handled[span_id]["attributes"]["wherry.scope"] == scope
            assert reply["message"]["seen"] == parent


def test_lines_about_a_message_have_its_trace(traced: Any):
    traces = {one["trace"] for one in traced["spans"] if one["name"] == "process test"}
    told = [line.split(" ", 1) for line in traced["lines"]]
    assert {trace_id for trace_id, text in told if text.startswith("at work")} == traces
    [failed] = [one for one in traced["log"] if "error" in one]
    [bad] = [one for one in traced["spans"] if one["status"] == "ERROR"]
    assert failed["trace"] == bad["trace"]
    assert bad["events"] == ["exception"]
    assert not any("trace" in one for one in traced["log"] if one["event"] == "worker started")


def test_spans_do_not_keep_the_meter_from_its_turn(traced: Any):
    assert traced["handled"] == 8
