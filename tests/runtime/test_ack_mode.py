"""Ack mode in a worker: what is finished, and what becomes of what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from wherry.errors import MessageError, ScopeClosed
from wherry.model import Message
from wherry.runtime.instance import MAX_UNACKED
from wherry.testing import Harness


def ack(message: Message) -> Message:
    return {"type": "message.ack", "id": message["wherry"]["id"]}


def answer(message: Message, **fields: Any) -> Message:
    return {"type": "answer", "wherry": message["wherry"], "n": message["n"], **fields}


class Told:
    """An application that does with its messages, each by number, what the test tells it.

    Attributes:
        got: number and attempt of each message that was handed out.
        held: by number, what was handed out last.
        errors: what `do` raised, by the name of the class.
    """

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []
        self.held: dict[int, Message] = {}
        self.scope: dict[str, Any] = {}
        self.errors: list[str] = []
        self.calls = 0
        self._end: asyncio.Future[None]
        self._send: Callable[[Message], Any]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise ValueError(scope["type"])
        self.calls += 1
        self.scope, self._send = scope, send
        self._end = asyncio.get_running_loop().create_future()

        async def receive_all() -> None:
            while True:
                message = await receive()
                self.got.append((message["n"], message["wherry"]["attempt"]))
                self.held[message["n"]] = message

        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(receive_all())
            try:
                await self._end
            finally:
                receiving.cancel()

    def do(self, harness: Harness, *messages: Message) -> None:
        """Send from within the application."""

        async def send(_: Any) -> None:
            for message in messages:
                try:
                    await self._send(message)
                except (MessageError, ScopeClosed) as error:
                    self.errors.append(type(error).__name__)

        harness.run(send)
        harness.settle()

    def end(self, harness: Harness, error: Exception | None = None) -> None:
        """Return, or raise."""

        async def end(_: Any) -> None:
            if error is None:
                self._end.set_result(None)
            else:
                self._end.set_exception(error)

        harness.run(end)
        harness.settle()


def numbered(harness: Harness, count: int) -> None:
    for n in range(1, count + 1):
        harness.send("alice", {"type": "do", "n": n})
    harness.settle()


def answers(harness: Harness) -> list[Any]:
    return [(reply.message or {})["n"] for reply in harness.replies("alice")]


@pytest.fixture
def app() -> Told:
    return Told()


def test_what_was_not_acknowledged_is_handed_out_again_after_a_crash(app: Told):
    with Harness(app, ack_mode="on") as harness:
        numbered(harness, 4)
        app.do(harness, answer(app.held[1]), answer(app.held[2]), ack(app.held[2]))
        assert harness.backlog() == 3
        app.got.clear()
        harness.crash()
        harness.settle()
        assert app.got == [(1, 1), (3, 1), (4, 1)]
        app.do(harness, *(ack(app.held[n]) for n in (4, 3)))
        app.do(harness, answer(app.held[1]), ack(app.held[1]))
        assert answers(harness) == [2, 1]
        assert harness.backlog() == 0


def test_failure_is_that_of_the_oldest_and_the_others_begin_anew(app: Told):
    """What they had sent is sent again: kept, it would be written twice."""
    with Harness(app, ack_mode="on", handler_timeout_s=50) as harness:
        numbered(harness, 3)
        app.do(harness, *(answer(app.held[n]) for n in (1, 2, 3)), ack(app.held[1]))
        app.got.clear()
        harness.advance(40)
        app.end(harness, ValueError("no luck"))
        harness.advance(5)
        assert app.got == [(2, 2), (3, 1)]
        app.do(harness, *(answer(app.held[n]) for n in (2, 3)))
        harness.advance(20)  # the first time is more than 50 s ago, this one less
        assert len(app.got) == 2
        app.do(harness, ack(app.held[2]), ack(app.held[3]))
        assert answers(harness) == [1, 2, 3]
        assert harness.backlog() == 0


def test_returning_with_a_message_open_is_a_failed_attempt(app: Told):
    with Harness(app, ack_mode="on", max_attempts=1) as harness:
        numbered(harness, 2)
        app.got.clear()
        app.end(harness)
        harness.advance(5)
        assert app.got == [(2, 1)]
        (letter,) = harness.dead_letters("alice")
        assert "without acknowledging" in letter.error


def test_instance_with_a_message_open_is_not_ended_to_make_room(app: Told):
    with Harness(app, ack_mode="on", max_applications=1, idle_timeout_s=5) as harness:
        numbered(harness, 1)
        harness.send("bob", {"type": "do", "n": 9})
        harness.advance(60)
        assert (app.got, app.calls) == ([(1, 1)], 1)
        app.do(harness, ack(app.held[1]))
        harness.advance(1)
        assert (app.got, app.calls) == ([(1, 1), (9, 1)], 2)


def test_bounded_number_is_open(app: Told):
    with Harness(app, ack_mode="on") as harness:
        numbered(harness, MAX_UNACKED + 5)
        assert [n for n, _ in app.got] == list(range(1, MAX_UNACKED + 1))
        app.do(harness, ack(app.held[7]), ack(app.held[2]))
        assert [n for n, _ in app.got] == list(range(1, MAX_UNACKED + 3))


def test_ack_of_what_is_not_open_is_a_mistake_and_changes_nothing(app: Told):
    with Harness(app, ack_mode="on") as harness:
        numbered(harness, 2)
        app.do(harness, ack(app.held[1]), ack(app.held[1]))
        app.do(harness, {"type": "message.ack", "id": "9-9"})
        app.do(harness, {"type": "message.ack", "id": ["no id"]})
        assert app.errors == ["MessageError"] * 3
        assert harness.backlog() == 1
        app.do(harness, ack(app.held[2]))
        assert (harness.backlog(), app.calls, harness.failures) == (0, 1, [])


def test_ack_after_the_end_is_refused_and_finishes_nothing(app: Told):
    with Harness(app, ack_mode="on") as harness:
        numbered(harness, 1)
        before, old = app.held[1], app._send
        app.end(harness, ValueError("no luck"))
        harness.advance(5)
        assert app.got == [(1, 1), (1, 2)]
        new, app._send = app._send, old
        app.do(harness, ack(before), answer(before))
        assert app.errors == ["ScopeClosed"] * 2
        assert (harness.backlog(), answers(harness)) == (1, [])
        app._send = new
        app.do(harness, ack(app.held[1]))
        assert harness.backlog() == 0


def test_state_is_committed_in_the_order_of_acks(app: Told):
    with Harness(app, ack_mode="on", durable_state=True) as harness:
        numbered(harness, 3)
        for n in (3, 1, 2):
            app.scope["durable"]["acked"] = [*app.scope["durable"].get("acked", []), n]
            app.do(harness, answer(app.held[n]), ack(app.held[n]))
            assert harness.state("alice")["acked"][-1] == n
        harness.crash()
        assert harness.state("alice") == {"acked": [3, 1, 2]}
        assert answers(harness) == [3, 1, 2]


def test_state_that_is_too_large_at_an_ack_fails_the_attempt(app: Told):
    with Harness(app, ack_mode="on", durable_state=True, state_bytes=100) as harness:
        numbered(harness, 1)
        app.scope["durable"]["much"] = "x" * 200
        app.do(harness, ack(app.held[1]))
        assert app.errors == ["MessageError"]
        app.do(harness, ack(app.held[1]))  # it swallows the error; the message is not finished
        harness.advance(5)
        assert app.got == [(1, 1), (1, 2)]
        assert app.scope["durable"] == {}
        app.do(harness, ack(app.held[1]))
        assert (harness.backlog(), harness.state("alice")) == (0, {})


def test_leaving_worker_waits_for_acks(app: Told):
    with Harness(app, ack_mode="on", drain_timeout_s=20) as harness:
        numbered(harness, 2)

        async def ack_later() -> None:
            for n in (2, 1):
                await asyncio.sleep(5)
                await app._send(ack(app.held[n]))

        async def start(_: Any) -> None:
            tasks.append(asyncio.get_running_loop().create_task(ack_later()))

        tasks: list[asyncio.Task[None]] = []
        harness.run(start)
    assert tasks[0].done()
    assert not tasks[0].cancelled()
    assert tasks[0].exception() is None


def test_without_ack_mode_an_ack_is_a_mistake(app: Told):
    with Harness(app, ack_mode="off", max_attempts=1) as harness:
        numbered(harness, 1)
        app.do(harness, {"type": "message.ack"}, ack(app.held[1]))
        assert app.errors == ["MessageError"] * 2
        assert "message.ack" not in app.scope["extensions"]
