"""The place of a scope: one instance at a time, and what becomes of messages when it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.runtime.bare import turns, until
from tests.runtime.tracking import tracked
from wherry.errors import MessageError
from wherry.runtime.lane import Lane
from wherry.runtime.life import TRANSITIONS, LaneState


async def loop_(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await send((await receive())["number"])


async def once(scope: Any, receive: Any, send: Any) -> None:
    await send((await receive())["number"])


async def test_a_loop_finishes_each_message_in_order():
    async with tracked(loop_) as face:
        face.put("scope", 1, 2, 3)
        await until(lambda: face.policy.of("finished") == [1, 2, 3])
        assert face.sent == [1, 2, 3]
        assert face.policy.of("created") == ["scope"]


async def test_an_error_while_a_message_is_opened_fails_its_attempt_and_no_other():
    async with tracked(loop_) as face:
        face.policy.tries = 2
        begin, left = face.policy.begin, [1, 2]

        def breaking(lane: Lane, item: Any) -> Any:
            if left and item.entry.message["number"] == left[0]:
                raise ZeroDivisionError(left.pop(0))
            return begin(lane, item)

        face.policy.begin = breaking
        face.put("scope", 1, 2, 3)
        await until(lambda: face.policy.of("finished") == [1, 2, 3])
        assert face.policy.of("failed") == [1, 2]


async def test_an_instance_that_returns_with_messages_waiting_gets_a_successor():
    async with tracked(once) as face:
        lane = face.put("scope", 1, 2, 3)
        await until(lambda: face.policy.of("finished") == [1, 2, 3])
        await until(lane.future.done)
        assert "scope" not in face.pool.lanes
        lane.input_queue.put_nowait(4)
        assert face.policy.of("created") == ["scope", "scope"]


async def test_an_instance_that_ends_without_receiving_fails_the_head_and_does_not_loop():
    calls = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1

    async with tracked(application) as face:
        face.policy.tries = 3
        face.put("scope", 1, 2)
        await until(lambda: "scope" not in face.pool.lanes)
        await turns()
        assert face.policy.of("failed") == [1, 1, 1, 2, 2, 2]
        assert face.policy.of("finished") == []
        assert calls == 6


async def test_an_instance_that_ends_without_receiving_and_without_messages_just_ends():
    async def application(scope: Any, receive: Any, send: Any) -> None:
        return

    async with tracked(application) as face:
        lane = face.pool.get_or_create("scope", {})
        await until(lane.future.done)
        await turns()
        assert face.policy.of("failed") == []
        assert not face.pool.lanes


async def test_a_failing_application_is_tried_again_and_what_is_behind_waits():
    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["number"] == 1 and message["attempt"] < 3:
                raise ValueError
            await send((message["number"], message["attempt"]))

    async with tracked(application) as face:
        face.policy.tries = 5
        face.put("scope", 1, 2)
        await until(lambda: face.policy.of("finished") == [1, 2])
        assert face.sent == [(1, 3), (2, 1)]
        assert face.policy.of("failed") == [1, 1]


async def test_an_error_of_prepare_fails_the_head_and_is_reported():
    async with tracked(once) as face:

        def refuse() -> None:
            face.policy.prepared = lambda: None
            raise MessageError("no state")

        face.policy.prepared = refuse
        face.put("scope", 1, 2)
        await until(lambda: face.policy.of("finished") == [2])
        assert face.policy.of("failed") == [1]
        told: list[BaseException] = []

        async def tell(error: BaseException, details: Any) -> None:
            told.append(error)

        await face.pool.failures.flush(tell)
        assert [str(error) for error in told] == ["no state"]


async def test_an_application_that_sends_to_itself_leaves_the_loop_to_others():
    async with tracked(once) as face:

        async def application(scope: Any, receive: Any, send: Any) -> None:
            face.put("scope", (await receive())["number"] + 1)

        face.application = application
        lane = face.put("scope", 0)
        await turns(50)
        assert 10 < face.policy.of("finished")[-1] < 60
        face.pool.end(lane)


async def test_what_an_instance_was_at_when_it_was_cut_off_is_not_finished():
    """Also when the application swallows its cancellation and returns."""
    started = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal started
        message = await receive()
        started += 1
        if started == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return
        await send(message["number"])

    async with tracked(application) as face:
        lane = face.put("scope", 1)
        await until(lambda: started == 1)
        face.pool.end(lane)
        await until(lambda: face.policy.of("finished") == [1])
        assert face.policy.of("interrupted") == [1]
        assert face.sent == [1]


async def test_a_lane_that_ends_in_good_order_finishes_its_message_first():
    go_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await go_on.wait()
            await send(message["number"])

    async with tracked(application) as face:
        lane = face.put("scope", 1, 2)
        await turns()
        face.pool.end(lane, at_once=False)
        await turns()
        assert not lane.future.done()
        go_on.set()
        await until(lambda: face.policy.of("finished") == [1, 2])
        assert face.policy.of("interrupted") == []
        assert face.policy.of("created") == ["scope", "scope"]


async def test_in_ack_mode_what_is_not_acknowledged_at_the_end_fails():
    async with tracked(once) as face:
        face.policy.acks = True
        face.put("scope", 1)
        await until(lambda: face.policy.of("failed") == [1])
        assert face.policy.of("finished") == []


async def test_in_ack_mode_a_lane_ends_in_good_order_when_all_is_acknowledged():
    lanes: list[Lane] = []
    received: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            received.append((await receive())["id"])

    async with tracked(application) as face:
        face.policy.acks = True
        lane = face.put("scope", 1, 2)
        lanes.append(lane)
        await until(lambda: len(received) == 2)
        face.pool.end(lane, at_once=False)
        await turns()
        assert not lane.future.done()
        assert lane.instance is not None
        lane.instance.acknowledge("2-0")
        await turns()
        assert not lane.future.done()
        lane.instance.acknowledge("1-0")
        await until(lane.future.done)
        assert face.policy.of("finished") == [2, 1]
        assert face.policy.of("interrupted") == []


async def test_a_gated_lane_takes_nothing_until_it_is_woken():
    async with tracked(loop_) as face:
        face.policy.may_begin = False
        face.put("scope", 1)
        await turns()
        assert face.sent == []
        face.policy.open_gate()
        await until(lambda: face.policy.of("finished") == [1])


async def test_a_gate_that_opens_lets_every_waiting_receive_have_its_message():
    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def one() -> None:
            await send((await receive())["number"])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(one())

    async with tracked(application) as face:
        face.policy.may_begin = False
        face.put("scope", 1, 2, 3)
        await turns()
        face.policy.gated = face.policy.gated[:1]
        face.policy.open_gate()
        await until(lambda: face.sent == [1, 2, 3])


async def test_another_scope_takes_another_instance():
    scopes: list[bytes] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope["keys"])
        await loop_(scope, receive, send)

    async with tracked(application) as face:
        face.put("scope", 1, 2)
        face.put("scope", 3, keys=b"other")
        face.put("scope", 4)
        await until(lambda: face.policy.of("finished") == [1, 2, 3, 4])
        assert scopes == [b"", b"other", b""]


@pytest.mark.parametrize("acks", [False, True])
async def test_several_open_messages_of_a_failed_instance_come_again_in_order(acks: bool):
    """Only the oldest can be to blame."""
    runs = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(receive())
                second = tasks.create_task(receive())
                await asyncio.wait([first, second])
            raise ValueError
        while True:
            message = await receive()
            await send((message["number"], message["attempt"]))
            if acks:
                instance = face.pool.lanes["scope"].instance
                assert instance is not None
                instance.acknowledge(message["id"])

    async with tracked(application) as face:
        face.policy.acks = acks
        face.policy.tries = 2
        face.put("scope")
        await turns()
        face.put("scope", 1, 2, 3)
        await until(lambda: face.policy.of("finished") == [1, 2, 3])
        assert face.policy.of("failed") == [1]
        assert face.sent == [(1, 2), (2, 1), (3, 1)]


class Nobody:
    """A host that is never asked."""


@pytest.mark.parametrize("state", LaneState)
@pytest.mark.parametrize("then", LaneState)
def test_a_lane_lives_by_its_table(state: LaneState, then: LaneState):
    lane = Lane(Nobody(), "scope", {}, 0.0)  # type: ignore[arg-type] - never asked
    lane.state = state
    if then in TRANSITIONS[state]:
        lane.move(then)
        assert lane.state is then
    else:
        with pytest.raises(ValueError, match="cannot go from"):
            lane.move(then)
        assert lane.state is state
