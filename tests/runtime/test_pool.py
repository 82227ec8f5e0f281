"""The pool: one lane of a scope at a time, room, and what is idle."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.bare import turns, until
from tests.runtime.test_lane import loop_
from tests.runtime.tracking import Face, delivery, tracked
from wherry.runtime.idle import Idle
from wherry.runtime.lane import Lane
from wherry.runtime.life import LaneState


class Slow:
    """An application that takes its time to end, and tells who runs."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running: Counter[Any] = Counter()
        self.most_of_a_scope = 0
        self.most = 0
        self.got: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running[scope["id"]] += 1
        self.most_of_a_scope = max(self.most_of_a_scope, self.running[scope["id"]])
        self.most = max(self.most, self.running.total())
        try:
            while True:
                self.got.append((await receive())["number"])
        finally:
            await self.go_on.wait()
            self.running[scope["id"]] -= 1


async def test_a_successor_waits_for_all_lanes_before_it():
    """Delete and create, again and again, while the first takes long to end."""
    slow = Slow()
    async with tracked(slow) as face:
        face.put("scope", 1)
        await turns()
        for number in range(2, 6):
            face.pool.end(face.pool.lanes["scope"])
            face.put("scope", number)
            await turns(number)
        face.pool.end(face.pool.lanes["scope"])
        face.pool.end(face.put("scope", 6))
        face.put("scope", 7)
        await turns()
        assert slow.running["scope"] == 1
        assert slow.got == [1]
        slow.go_on.set()
        await until(lambda: slow.got == [1, 2, 3, 4, 5, 6, 7])
        assert slow.most_of_a_scope == 1


async def test_what_is_put_into_any_queue_of_a_scope_while_it_ends_keeps_its_order():
    slow = Slow()
    async with tracked(slow) as face:
        first = face.put("scope", 1)
        await turns()
        first.input_queue.put_nowait("untracked")  # not taken before the end
        face.put("scope")
        face.pool.end(first)
        first.input_queue.drain()
        face.put("scope", 2)
        second = face.pool.lanes["scope"]
        face.pool.end(second)
        face.put("scope", 3)
        for lane, number in ((first, 4), (second, 5)):
            face.put("scope")
            lane.input_queue.put_nowait(delivery("scope", number))
        slow.go_on.set()
        await until(lambda: slow.got == [1, 2, 3, 4, 5])


async def test_a_message_that_was_cut_off_comes_before_those_that_came_since():
    cut_off = asyncio.Event()
    got: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            got.append(message["number"])
            if not cut_off.is_set():
                await asyncio.Event().wait()

    async with tracked(application) as face:
        lane = face.put("scope", 1, 2)
        await until(lambda: got == [1])
        cut_off.set()
        face.pool.end(lane)
        face.put("scope", 3)
        await until(lambda: got == [1, 1, 2, 3])
        assert face.policy.of("interrupted") == [1]


async def test_a_lane_that_does_not_end_is_abandoned_and_its_room_is_free(
    caplog: pytest.LogCaptureFixture,
):
    slow = Slow()
    async with tracked(slow, max_applications=1, end_timeout_s=0.02) as face:
        lane = face.put("hangs", 1)
        await turns()
        face.pool.end(lane)
        face.put("other", 2)
        await until(lambda: lane.state is LaneState.ABANDONED)
        await until(lambda: slow.got == [1, 2])
        assert lane in face.pool.leaving
        assert "does not end when it is cancelled" in caplog.text
        face.pool.end(face.pool.lanes["other"])
        face.put("hangs", 3)
        await turns()
        assert slow.got == [1, 2]  # its own scope waits for it
        slow.go_on.set()
        await until(lambda: slow.got == [1, 2, 3])
        assert slow.most_of_a_scope == 1


async def test_one_timer_serves_all_that_end():
    slow = Slow()
    loop = asyncio.get_running_loop()
    calls = 0
    call_later = loop.call_later

    def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        nonlocal calls
        calls += 1
        return call_later(*args, **kwargs)

    async with tracked(slow) as face:
        for number in range(50):
            face.put(number, number)
        await until(lambda: len(slow.got) == 50)
        loop.call_later = counted  # type: ignore[method-assign] - looked at from outside
        for lane in list(face.pool.lanes.values()):
            face.pool.end(lane)
        del loop.call_later
        assert calls == 1
        slow.go_on.set()


async def test_nobody_overtakes_those_that_wait_for_room():
    go_on = asyncio.Event()
    got: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        got.append((await receive())["number"])
        await go_on.wait()

    async with tracked(application, max_applications=1) as face:
        face.put("runs", 1)
        await turns()
        face.put("waits", 2)
        await turns()
        go_on.set()
        face.put("comes", 3)  # its first step is between the other's end and what follows from it
        await until(lambda: got == [1, 2, 3])


async def test_an_instance_between_two_receives_is_not_idle():
    """It has no message, but it is at work: a receive() with a time limit, then something else."""
    working = asyncio.Event()
    done = asyncio.Event()
    outcome: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["id"] != "works":
            await loop_(scope, receive, send)
        try:
            async with asyncio.timeout(0):
                await receive()
        except TimeoutError:
            pass
        working.set()
        try:
            await done.wait()
            outcome.append("done")
        except asyncio.CancelledError:
            outcome.append("cut off")
            raise

    async with tracked(application, max_applications=1) as face:
        face.put("works")
        await working.wait()
        face.put("other", 1)
        await turns()
        assert outcome == []
        done.set()
        await until(lambda: face.policy.of("finished") == [1])
        assert outcome == ["done"]


async def test_an_instance_that_may_not_end_yet_is_not_idle():
    async with tracked(loop_, max_applications=1) as face:
        face.policy.may_rest = False
        lane = face.put("unsettled", 1)
        await until(lambda: face.sent == [1])
        await turns()
        face.put("other", 2)
        await turns()
        assert face.pool.is_full
        assert not lane.future.done()
        face.policy.may_rest = True
        face.pool.rest(lane)
        await until(lambda: face.sent == [1, 2])
        assert not face.pool.is_full
        assert lane.future.done()


async def test_a_lane_that_has_returned_is_not_looked_at_as_idle():
    """Between the end of its task and the callback nothing must go round in search of room."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(0):
                await receive()
        except TimeoutError:
            if scope["id"] < 5:
                face.put(scope["id"] + 1)

    async with tracked(application, max_applications=1) as face:
        face.put(0)
        await until(lambda: len(face.policy.of("ended")) == 6)


async def test_what_has_ended_is_freed_without_a_collection():
    gc.collect()
    gc.disable()
    try:
        async with tracked(loop_, max_applications=1) as face:
            for number in range(5):
                face.put(number, number)
                await turns()
            assert face.sent == [0, 1, 2, 3, 4]
            face.policy.keys.clear()
            lanes = [one for one in gc.get_objects() if type(one) is Lane]
            assert [one.scope_id for one in lanes if one._host is face.pool] == [4]
    finally:
        gc.enable()


async def test_applications_that_start_others_while_they_end_do_not_hold_up_the_end():
    count = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal count
        try:
            await receive()
        finally:
            count += 1
            if count < 10:
                face.put(count, count)

    face: Face
    async with tracked(application) as face:
        face.put(0)
        await turns()
    assert not face.pool.lanes
    assert not face.pool.leaving
    assert count >= 1


async def test_ending_twice_and_ending_what_has_ended_do_nothing():
    async with tracked(loop_) as face:
        lane = face.put("scope", 1)
        await turns()
        face.pool.end(lane)
        face.pool.end(lane)
        face.pool.end(lane, at_once=False)
        await until(lane.future.done)
        face.pool.end(lane)
        await until(lambda: lane.state is LaneState.ENDED)
        face.pool.end(lane)
        assert face.policy.of("ended") == ["scope"]


async def test_find_tells_the_lanes_of_a_scope_apart_by_what_they_were_called_with():
    slow = Slow()
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await slow(scope, receive, send)

    async with tracked(application) as face:
        lane = face.put("scope", 1)
        await turns()
        face.pool.end(lane)
        face.put("scope", 2)
        assert face.pool.find("scope", scopes[0]) is lane
        assert face.pool.find("nobody", scopes[0]) is None
        slow.go_on.set()
        await until(lambda: len(scopes) == 2)
        assert face.pool.find("scope", scopes[1]) is face.pool.lanes["scope"]


@pytest.mark.parametrize("seed", range(40))
async def test_a_random_life_loses_nothing_and_runs_no_scope_twice(seed: int):
    """Puts, deletions, cancelled futures and errors at random turns, more scopes than room."""
    chance = random.Random(seed)
    running: Counter[Any] = Counter()
    most = 3

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope_id = scope["id"]
        running[scope_id] += 1
        assert running[scope_id] == 1, "two instances of a scope"
        assert running.total() <= most, "more instances than room"
        try:
            for _ in range(chance.randrange(1, 6)):
                await receive()
                await turns(chance.randrange(3))
                if chance.random() < 0.1:
                    raise ValueError
                await turns(chance.randrange(2))
        except asyncio.CancelledError:
            await turns(chance.randrange(4))
            if chance.random() < 0.7:
                raise
        finally:
            running[scope_id] -= 1

    async with tracked(application, max_applications=most) as face:
        face.policy.tries = 1_000
        put: dict[int, int] = {}
        for _ in range(300):
            scope_id = chance.randrange(6)
            lane = face.pool.lanes.get(scope_id)
            match chance.randrange(8):
                case 0 if lane is not None:
                    face.pool.end(lane, at_once=chance.random() < 0.5)
                case 1 if lane is not None:
                    lane.future.cancel()
                case 2:
                    face.pool.end_oldest()
                case 3:
                    await turns(chance.randrange(6))
                case _:
                    put[scope_id] = put.get(scope_id, 0) + 1
                    face.put(scope_id, put[scope_id])
            assert len(face.pool.lanes) <= 6
        await until(lambda: len(face.policy.of("finished")) >= sum(put.values()))
        for scope_id, count in put.items():
            finished = [n for one, n in face.policy.of("finished by") if one == scope_id]
            assert finished == list(range(1, count + 1)), "lost, doubled or out of order"


class Nobody:
    """A host that is never asked."""

    def used(self, lane: Lane) -> None:
        """Asked, but nothing follows."""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "use", "forget", "ask for", "set", "take", "look"]),
            st.integers(0, 5),
            st.floats(-1e3, 1e6),
        ),
        min_size=20,
        max_size=80,
    )
)
def test_the_oldest_idle_lane_is_the_one_with_the_smallest_last_used(
    moves: list[tuple[str, int, float]],
):
    """Compared with a plain search through all of them."""
    lanes = [Lane(Nobody(), number, {}, 0.0) for number in range(6)]  # type: ignore[arg-type]
    idle = Idle()
    model: set[Lane] = set()
    used_s = dict.fromkeys(lanes, 0.0)
    by_hand: set[Lane] = set()
    now_s = 0.0
    for move, number, value in [*moves, ("look", 0, 0.0)]:
        lane = lanes[number]
        now_s += 1.0
        if move in ("add", "use") and lane not in by_hand:
            used_s[lane] = now_s
        match move:
            case "add":
                idle.add(lane, now_s)
                model.add(lane)
            case "use":
                idle.use(lane, now_s)
                model.discard(lane)
            case "forget":
                idle.forget(lane)
                model.discard(lane)
                by_hand.discard(lane)
            case "ask for":
                idle.ask_for(lane, now_s)
                by_hand.discard(lane)
                used_s[lane] = now_s
            case "set":
                lane["last_used"] = used_s[lane] = value
                idle.set_by_hand(lane)
                by_hand.add(lane)
            case _:
                oldest = idle.oldest()
                assert (oldest is None) == (not model)
                if oldest is not None:
                    assert oldest in model
                    assert oldest.last_used == min(used_s[lane] for lane in model)
                    if move == "take":
                        idle.forget(oldest)
                        model.discard(oldest)
                        by_hand.discard(oldest)
        assert {lane: lane.last_used for lane in lanes} == used_s
