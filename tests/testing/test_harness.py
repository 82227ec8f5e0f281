"""The harness runs applications on the real engine, at once and without waiting."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import traceback
import unittest
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.testing.apps import Flaky, counter, echo, streamer
from wherry.broker.memory import memory_server
from wherry.client import SyncClient
from wherry.errors import (
    ApplicationError,
    ConfigError,
    HarnessError,
    MessageError,
    MessageFailed,
    RequestTimeout,
    StartupFailed,
    WrongLoop,
)
from wherry.model import Reply
from wherry.testing import Harness


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "say", "text": text, **more}


def test_request_returns_the_replies():
    with Harness(echo) as harness:
        assert harness.request("alice", say("hi")) == [{"type": "echo", "text": "hi"}]
        assert harness.elapsed_s == 0


def test_what_was_sent_is_handled_when_somebody_looks():
    with Harness(echo) as harness:
        first = harness.send("alice", say("one"))
        second = harness.send("alice", say("two"))
        harness.send("bob", say("three"))
        replies = harness.replies("alice")
        assert [(reply.cause, reply.message) for reply in replies] == [
            (first, {"type": "echo", "text": "one"}),
            (second, {"type": "echo", "text": "two"}),
        ]
        assert all(isinstance(reply, Reply) for reply in replies)
        assert harness.backlog() == 0
        assert harness.replies("nobody") == []


def test_messages_of_a_scope_are_handled_in_order():
    with Harness(echo, workers=3) as harness:
        for number in range(50):
            for scope_id in ("a", "b", "c", "d"):
                harness.send(scope_id, say(f"{scope_id}{number}"))
        for scope_id in ("a", "b", "c", "d"):
            texts = [(reply.message or {})["text"] for reply in harness.replies(scope_id)]
            assert texts == [f"{scope_id}{number}" for number in range(50)]


def test_durable_state_is_what_was_committed():
    with Harness(counter, durable_state=True) as harness:
        assert harness.state("alice") == {}
        harness.request("alice", {"type": "count"})
        harness.send("alice", {"type": "count", "by": 10, "takes_s": 3})
        assert harness.state("alice") == {"count": 1}
        assert harness.backlog() == 1
        harness.advance(3)
        assert harness.state("alice") == {"count": 11}
        assert harness.backlog() == 0


def test_time_stands_still_but_in_what_moves_it():
    with Harness(counter, durable_state=True) as harness:
        harness.send("alice", {"type": "count", "takes_s": 100})
        harness.settle()
        assert harness.elapsed_s == 0
        assert harness.replies("alice") == []
        harness.advance(99.5)
        assert harness.elapsed_s == 99.5
        assert harness.replies("alice") == []
        assert len(harness.request("alice", {"type": "count"})) == 1
        assert harness.elapsed_s == pytest.approx(100)


def test_hours_pass_in_no_time():
    started_s = time.monotonic()
    slow = {"beat_s": 60, "lease_s": 600, "block_s": 60, "socket_timeout_s": 120}
    with Harness(counter, durable_state=True, **slow) as harness:
        harness.send("alice", {"type": "count", "takes_s": 5 * 3600})
        harness.advance(5 * 3600)
        assert len(harness.replies("alice")) == 1
    assert time.monotonic() - started_s < 5


def test_failed_message_is_tried_again_after_its_backoff():
    app = Flaky()
    with Harness(app, retry_backoff_s=8) as harness:
        harness.send("alice", say("it", failures=1))
        harness.settle()
        assert [attempt for _, attempt in app.tries] == [1]
        harness.advance(3.9)
        assert len(app.tries) == 1
        harness.advance(4.1)
        assert [attempt for _, attempt in app.tries] == [1, 2]
        assert 4 <= app.tries[1][0] - app.tries[0][0] <= 8
        assert [reply.message for reply in harness.replies("alice")] == [
            {"type": "done", "attempt": 2}
        ]
        assert [(one.scope_id, str(one.error)) for one in harness.failures] == [
            ("alice", "no luck with it")
        ]


def test_request_waits_for_backoffs_by_itself():
    with Harness(Flaky(), retry_backoff_s=2) as harness:
        assert harness.request("a", say("it", failures=2)) == [{"type": "done", "attempt": 3}]
        assert 3 <= harness.elapsed_s <= 6


def test_dead_letter_holds_the_message_and_the_error():
    with Harness(Flaky(), max_attempts=2) as harness:
        entry_id = harness.send("alice", say("it", failures=9))
        harness.send("alice", say("that", failures=0))
        harness.advance(5)
        (letter,) = harness.dead_letters("alice")
        assert letter.entry_id == entry_id
        assert letter.message == say("it", failures=9)
        assert letter.error == "ValueError: no luck with it"
        assert letter.attempts == 2
        assert "in __call__" in letter.traceback
        assert harness.dead_letters() == [letter]
        assert harness.dead_letters("bob") == []
        replies = harness.replies("alice")
        assert [(one.error, one.message) for one in replies] == [
            ("ValueError: no luck with it", None),
            (None, {"type": "done", "attempt": 1}),
        ]


def test_failed_request_shows_the_applications_traceback():
    with Harness(Flaky(), max_attempts=2) as harness:
        with pytest.raises(MessageFailed, match="no luck with it") as raised:
            harness.request("alice", say("it", failures=9))
        assert isinstance(raised.value.__cause__, ValueError)
        shown = "".join(traceback.format_exception(raised.value))
        assert "apps.py" in shown
        assert len(harness.failures) == 2
        with pytest.raises(MessageFailed, match="no luck with that") as raised:
            harness.request("alice", say("that", failures=9))
        assert str(raised.value.__cause__) == "no luck with that"


def test_request_without_answer_times_out_on_the_moved_clock():
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    with Harness(silent, lifespan="off") as harness:
        with pytest.raises(RequestTimeout):
            harness.request("alice", say("hi"), timeout_s=120)
        assert harness.elapsed_s == 120
        assert harness.backlog() == 1


def test_stream_yields_each_reply_at_its_time():
    with Harness(streamer) as harness:
        seen = [
            (harness.elapsed_s, (event.message or {})["word"])
            for event in harness.request_stream("alice", say("now and then"))
            if isinstance(event, Reply)
        ]
        assert seen == [(0, "now"), (1, "and"), (2, "then")]


def test_idle_instance_is_ended_by_the_clock():
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                await receive()
        finally:
            ended.append(scope["scope_id"])

    with Harness(app, lifespan="off", idle_timeout_s=30) as harness:
        harness.send("alice", say("hi"))
        harness.advance(20)
        harness.send("bob", say("hi"))
        harness.advance(9)
        assert ended == []
        harness.advance(4)
        assert ended == ["alice"]
        harness.advance(20)
        assert ended == ["alice", "bob"]


def test_message_that_expired_before_a_worker_read_it_is_not_handled():
    with Harness(echo, workers=0) as harness:
        late = harness.send("alice", say("late"), expires_s=30)
        harness.advance(31)
        in_time = harness.send("alice", say("in time"), expires_s=30)
        harness.add_worker()
        replies = harness.replies("alice")
        assert [(one.cause, one.message) for one in replies if one.message] == [
            (in_time, {"type": "echo", "text": "in time"})
        ]
        assert [one.cause for one in replies if "Expired" in (one.error or "")] == [late]


def test_keys_of_the_store_expire_by_the_moved_clock():
    with Harness(echo, reply_ttl_s=100, dedup_ttl_s=50, beat_s=10, lease_s=30) as harness:
        first = harness.send("alice", say("hi"), message_id="m1")
        assert harness.send("alice", say("hi"), message_id="m1") == first
        harness.advance(49)
        assert harness.send("alice", say("hi"), message_id="m1") == first
        harness.advance(2)
        assert harness.send("alice", say("hi"), message_id="m1") != first
        assert len(harness.replies("alice")) == 2
        harness.advance(101)
        assert harness.replies("alice") == []


def test_lifespan_state_reaches_the_instances():
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            kind = (await receive())["type"]
            events.append(kind)
            scope["state"]["answer"] = 42
            await asyncio.sleep(20)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
        await receive()
        await send({"type": "told", "answer": scope["state"]["answer"]})

    with Harness(app) as harness:
        assert harness.request("alice", say("?")) == [{"type": "told", "answer": 42}]
    assert events == ["lifespan.startup", "lifespan.shutdown"]


def test_application_that_fails_to_start_says_why():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(StartupFailed, match="no database"):
        Harness(app).__enter__()


def test_threads_of_the_application_are_waited_for():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        text = await asyncio.to_thread(slow_upper, message["text"])
        await send({"type": "said", "text": text})

    def slow_upper(text: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        released.wait(10)
        return text.upper()

    released = threading.Event()
    with Harness(app) as harness:
        threading.Timer(0.1, released.set).start()
        harness.send("alice", say("hi"))
        assert [one.message for one in harness.replies("alice")] == [{"type": "said", "text": "HI"}]
        assert harness.elapsed_s == 0


def test_sockets_of_the_application_are_waited_for():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(message["text"].encode() + b"\n")
        await send({"type": "said", "text": (await reader.readline()).decode().strip()})
        writer.close()
        await writer.wait_closed()

    with upper_server() as port, Harness(app, lifespan="off") as harness:
        assert harness.request("alice", say("hi")) == [{"type": "said", "text": "HI"}]
        assert harness.elapsed_s < 5


class upper_server:  # noqa: N801 - a context manager
    """A server in a thread that answers one line, after a while, in upper case."""

    def __enter__(self) -> int:
        self._ready, self._stop = threading.Event(), threading.Event()
        self._port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        self._ready.wait(10)
        return self._port

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        async with server:
            self._ready.set()
            await self._end.wait()

    async def _answer(self, reader: Any, writer: Any) -> None:
        line = await reader.readline()
        await asyncio.sleep(0.2)  # the wait that the test is about
        writer.write(line.upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def test_code_under_test_may_send_with_a_client_of_its_own():
    with Harness(echo) as harness, SyncClient(harness.url) as client:
        client.send("alice", say("hi"))
        assert [one.message for one in harness.replies("alice")] == [{"type": "echo", "text": "hi"}]


def test_channels_consumers_hear_one_another():
    from examples.channels_consumer.app import application

    with Harness(application) as harness:
        for person in ("ann", "bob"):
            assert harness.request(person, {"type": "room.join", "room": "lobby"}) == [
                {"type": "room.joined", "room": "lobby"}
            ]
        harness.send("ann", {"type": "room.say", "room": "lobby", "text": "hello"})
        heard = {"type": "room.heard", "by": "ann", "text": "hello"}
        assert harness.replies("bob")[-1].message == heard
        assert harness.replies("ann")[-1].message == heard
        with pytest.raises(MessageFailed, match="nowhere"):
            harness.request("ann", {"type": "room.join", "room": "lobby"}, channel="nowhere")


def test_any_coroutine_can_be_run_with_the_client():
    with Harness(echo) as harness:
        messages = [(f"s{number}", say("hi")) for number in range(20)]
        assert len(harness.run(lambda client: client.send_many(messages))) == 20
        assert all(len(harness.replies(scope_id)) == 1 for scope_id, _ in messages)


def test_two_harnesses_at_a_time_are_strangers():
    with Harness(echo) as one, Harness(counter, durable_state=True) as two:
        assert one.url != two.url
        one.send("alice", say("hi"))
        two.send("alice", {"type": "count"})
        one.advance(100)
        assert two.elapsed_s == 0
        assert [reply.message for reply in one.replies("alice")] == [{"type": "echo", "text": "hi"}]
        assert two.state("alice") == {"count": 1}
        assert one.state("alice") == {}


def test_nothing_is_left_when_it_ends():
    threads = set(threading.enumerate())
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        task = asyncio.create_task(background())
        await receive()
        await asyncio.to_thread(gc.collect)
        await send({"type": "done"})
        await receive()
        await task

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("background")

    with Harness(app) as harness:
        assert harness.request("alice", say("hi")) == [{"type": "done"}]
        url = harness.url
        server = memory_server(url.removeprefix("memory://"))
    assert ended == ["background"]
    assert set(threading.enumerate()) == threads
    assert memory_server(url.removeprefix("memory://")) is not server
    gc.collect()  # an open connection, a lost task or an unawaited coroutine warns: an error here


def test_message_that_never_ends_does_not_hold_the_end_up():
    with Harness(counter, durable_state=True) as harness:
        harness.send("alice", {"type": "count", "takes_s": 10**9})
        harness.settle()


def test_test_that_fails_is_shown_as_it_failed():
    def test() -> None:
        with Harness(streamer) as harness:
            for _ in harness.request_stream("alice", say("a b c")):
                raise AssertionError("mine")

    with pytest.raises(AssertionError, match=r"^mine$"):
        test()


def test_two_messages_wait_for_instances_to_end_when_idle_ones_are_evicted():
    with Harness(counter, durable_state=True, max_applications=2) as harness:
        for round_number in range(1, 4):
            for number in range(10):
                assert harness.request(f"s{number}", {"type": "count"}) == [
                    {"type": "count", "count": round_number}
                ]


class TestMisuse:
    """What goes wrong is told in one sentence that shows the way."""

    def test_without_with(self):
        with pytest.raises(HarnessError, match="with Harness"):
            Harness(echo).send("alice", say("hi"))

    def test_after_its_end(self):
        with Harness(echo) as harness:
            pass
        with pytest.raises(HarnessError, match="closed"):
            harness.send("alice", say("hi"))
        with pytest.raises(HarnessError, match="runs once"):
            harness.__enter__()

    async def test_in_a_coroutine(self):
        with pytest.raises(WrongLoop, match="plain function"):
            Harness(echo).__enter__()

    def test_called_from_the_application(self):
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            harness.send("bob", say("hi"))

        harness = Harness(app, max_attempts=1)
        with harness, pytest.raises(MessageFailed, match="WrongLoop"):
            harness.request("alice", say("hi"))

    def test_application_of_a_web_framework(self):
        with pytest.raises(ApplicationError, match=r"Starlette application.*docs/fastapi\.md"):
            Harness(Starlette())

    def test_no_application(self):
        with pytest.raises(ApplicationError, match="'str'"):
            Harness("module:app")  # type: ignore[arg-type]

    def test_misspelt_setting(self):
        with pytest.raises(ConfigError, match="did you mean durable_state"):
            Harness(echo, durable_stat=True)

    def test_message_that_does_not_travel(self):
        with Harness(echo) as harness, pytest.raises(MessageError, match="type"):
            harness.send("alice", {"text": "hi"})

    def test_time_does_not_run_backwards(self):
        with Harness(echo) as harness, pytest.raises(HarnessError, match="forward"):
            harness.advance(-1)

    def test_condition_that_never_comes_true(self):
        with Harness(echo) as harness:
            with pytest.raises(HarnessError, match="within 10 s"):
                harness.run_until(lambda: False, within_s=10)
            assert harness.elapsed_s <= 10

    def test_no_such_worker(self):
        with Harness(echo) as harness, pytest.raises(HarnessError, match="no worker 1"):
            harness.crash(1)


class UnittestUsage(unittest.TestCase):
    """It needs no plugin: `enterContext` is all."""

    def setUp(self) -> None:
        self.harness = self.enterContext(Harness(counter, durable_state=True))

    def test_count(self) -> None:
        self.harness.request("alice", {"type": "count", "by": 2})
        assert self.harness.state("alice") == {"count": 2}

    def test_count_again(self) -> None:
        assert self.harness.state("alice") == {}
