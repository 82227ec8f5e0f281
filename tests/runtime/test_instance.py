"""One call of the application: when a message leaves the inbox, and when it is finished."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.runtime.bare import turns, until
from wherry.errors import ScopeClosed
from wherry.model import PLAIN, Entry, EntryId, Message, Partition, ScopeId
from wherry.runtime.delivery import Delivery, deliver
from wherry.runtime.inbox import Item
from wherry.runtime.instance import MAX_UNACKED, NOTHING, Instance


def delivery(number: int) -> Delivery:
    entry = Entry()
    entry.id = EntryId(f"{number}-0")
    entry.partition = Partition(0)
    entry.scope_id = ScopeId("scope")
    entry.message = {"type": "test", "number": number}
    entry.body = b""
    entry.size_bytes = 1
    entry.extras = PLAIN
    return deliver(entry)


class Lane:
    """Implements `wherry.runtime.instance.Post` with a plain queue."""

    def __init__(self, **options: Any) -> None:
        self.queue: deque[Item] = deque()
        self.finished: list[int] = []
        self.failed: list[Exception] = []
        self.rests = 0
        self.stirs = 0
        self.seconds = 0
        self.passed_on: list[tuple[Any, Any]] = []
        self.is_shut = False
        self.instance = Instance(self, "the scope", **options)

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.queue.append(delivery(number))
            self.instance.wake()

    def take(self, instance: Instance) -> Message:
        if self.is_shut or not self.queue:
            return NOTHING
        item = self.queue.popleft()
        if self.queue:
            instance.wake()
        instance.unfinished += (item,)
        return item.entry.message

    def rest(self, instance: Instance) -> None:
        self.rests += 1

    def stir(self, instance: Instance) -> None:
        self.stirs += 1

    def finish_all(self, instance: Instance) -> None:
        while instance.unfinished:
            self.finish(instance, instance.unfinished[0])
            instance.unfinished = instance.unfinished[1:]

    def finish(self, instance: Instance, delivery: Delivery) -> None:
        self.finished.append(delivery.entry.message["number"])

    def fail(self, instance: Instance, error: Exception) -> None:
        self.failed.append(error)

    async def pass_on(self, instance: Instance, message: Message) -> None:
        self.passed_on.append((instance.scope, message))

    def second_receive(self) -> None:
        self.seconds += 1


async def number_of(instance: Instance) -> int:
    return (await instance.receive())["number"]


async def test_a_message_is_finished_by_the_next_receive():
    lane = Lane()
    lane.put(1, 2)
    assert await number_of(lane.instance) == 1
    assert lane.finished == []
    assert await number_of(lane.instance) == 2
    assert lane.finished == [1]
    lane.finish_all(lane.instance)
    assert lane.finished == [1, 2]
    assert not lane.instance.unfinished


async def test_a_message_is_finished_when_receive_is_called_and_not_when_it_returns():
    lane = Lane()
    lane.put(1)
    await lane.instance.receive()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(lane.instance.receive())
        await turns(2)
        assert lane.finished == [1]
        assert lane.instance.waiters
        lane.put(2)
        await waiting


async def test_a_cancelled_receive_loses_nothing_and_finishes_only_what_came_before():
    lane = Lane()
    task = asyncio.get_running_loop().create_task(lane.instance.receive())
    await turns(2)
    lane.put(1)  # it is awake now, but has not taken it
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [item.entry.id for item in lane.queue] == ["1-0"]
    assert not lane.instance.waiters
    assert lane.stirs == 1
    assert await number_of(lane.instance) == 1


async def test_the_wake_up_of_a_cancelled_receive_goes_to_the_next():
    lane = Lane()
    loop = asyncio.get_running_loop()
    first = loop.create_task(number_of(lane.instance))
    await turns(2)
    second = loop.create_task(number_of(lane.instance))
    await turns(2)
    lane.put(1)
    first.cancel()
    await until(second.done)
    assert second.result() == 1
    assert first.cancelled()
    assert lane.stirs == 0


async def test_a_second_receive_waits_its_turn_and_finishes_nothing():
    lane = Lane()
    loop = asyncio.get_running_loop()
    first = loop.create_task(number_of(lane.instance))
    await turns(2)
    second = loop.create_task(number_of(lane.instance))
    lane.put(1)  # the first is awake, but the second calls before it takes the message
    await until(first.done)
    await turns(2)
    assert not second.done()
    assert lane.seconds == 1
    lane.put(2)
    await until(second.done)
    assert (first.result(), second.result()) == (1, 2)
    assert lane.finished == []
    third = loop.create_task(number_of(lane.instance))
    await turns(2)
    assert lane.finished == [1, 2]
    fourth = loop.create_task(number_of(lane.instance))
    await turns(2)
    assert lane.seconds == 2
    lane.put(3)
    await until(third.done)
    assert not fourth.done()
    assert lane.finished == [1, 2]
    lane.put(4)
    await until(fourth.done)
    assert (third.result(), fourth.result()) == (3, 4)


async def test_a_receive_that_finds_nothing_keeps_its_turn():
    lane = Lane()
    loop = asyncio.get_running_loop()
    first = loop.create_task(number_of(lane.instance))
    await turns(2)
    second = loop.create_task(number_of(lane.instance))
    await turns(2)
    lane.is_shut = True
    lane.put(1)
    await turns()
    assert not first.done()
    lane.is_shut = False
    lane.put(2)
    await until(second.done)
    assert (first.result(), second.result()) == (1, 2)


async def test_resting_is_told_only_when_nothing_is_in_hand():
    lane = Lane()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(number_of(lane.instance)) for _ in range(2)]
    await turns(3)
    rests = lane.rests
    assert rests >= 1
    lane.put(1)
    await until(tasks[0].done)
    lane.instance.wake()
    await turns(3)
    assert lane.rests == rests
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])


async def test_what_cannot_be_finished_stays_unfinished():
    class Refusing(Lane):
        def finish(self, instance: Instance, delivery: Delivery) -> None:
            raise ValueError("too large")

    lane = Refusing()
    lane.put(1)
    await lane.instance.receive()
    with pytest.raises(ValueError, match="too large"):
        await lane.instance.receive()
    assert len(lane.instance.unfinished) == 1


async def test_send_passes_the_scope_on_and_raises_after_the_end():
    lane = Lane()
    await lane.instance.send({"type": "a"})
    assert lane.passed_on == [("the scope", {"type": "a"})]
    lane.instance.close()
    with pytest.raises(ScopeClosed):
        await lane.instance.send({"type": "b"})
    assert issubclass(ScopeClosed, OSError)
    assert len(lane.passed_on) == 1


async def test_receive_after_the_end_is_cancelled_and_finishes_nothing():
    lane = Lane()
    lane.put(1, 2)
    await lane.instance.receive()
    lane.instance.close()
    with pytest.raises(asyncio.CancelledError):
        await lane.instance.receive()
    assert lane.finished == []
    assert len(lane.queue) == 1


async def test_closing_ends_all_that_wait():
    lane = Lane()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(lane.instance.receive()) for _ in range(3)]
    await turns(3)
    lane.instance.close()
    lane.queue.append(delivery(1))
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert len(lane.queue) == 1


async def test_a_held_instance_gets_nothing_and_does_not_rest():
    lane = Lane()
    task = asyncio.get_running_loop().create_task(number_of(lane.instance))
    await turns(2)
    rests = lane.rests
    with lane.instance.held():
        assert lane.stirs == 1
        assert not lane.instance.is_waiting()
        with lane.instance.held():
            lane.put(1)
            await turns()
        lane.instance.wake()
        await turns()
        assert not task.done()
        assert len(lane.queue) == 1
        assert lane.rests == rests
    await until(task.done)
    assert task.result() == 1


async def test_an_instance_rests_again_when_it_is_no_longer_held():
    lane = Lane()
    task = asyncio.get_running_loop().create_task(lane.instance.receive())
    await turns(2)
    rests = lane.rests
    with lane.instance.held():
        await turns()
    await turns()
    assert lane.instance.is_waiting()
    assert lane.rests == rests + 1
    task.cancel()
    await asyncio.wait([task])


async def test_after_the_end_nothing_is_acknowledged():
    lane = Lane(acks=True)
    lane.put(1)
    await lane.instance.receive()
    lane.instance.close()
    assert not lane.instance.acknowledge("1-0")
    assert lane.finished == []


async def test_in_ack_mode_only_an_ack_finishes():
    lane = Lane(acks=True)
    lane.put(1, 2, 3)
    for number in (1, 2, 3):
        assert await number_of(lane.instance) == number
    assert lane.finished == []
    assert lane.instance.acknowledge("2-0")
    assert not lane.instance.acknowledge("2-0")
    assert not lane.instance.acknowledge("9-0")
    assert lane.finished == [2]
    assert [one.entry.id for one in lane.instance.unfinished] == ["1-0", "3-0"]


async def test_in_ack_mode_a_bounded_number_is_open_and_an_ack_lets_the_next_in():
    lane = Lane(acks=True)
    lane.put(*range(MAX_UNACKED + 2))
    for number in range(MAX_UNACKED):
        assert await number_of(lane.instance) == number
    task = asyncio.get_running_loop().create_task(number_of(lane.instance))
    await turns()
    assert not task.done()
    assert lane.instance.acknowledge("3-0")
    await until(task.done)
    assert task.result() == MAX_UNACKED
    assert len(lane.instance.unfinished) == MAX_UNACKED


async def test_in_ack_mode_the_last_ack_makes_an_instance_that_waits_rest():
    lane = Lane(acks=True)
    lane.put(1)
    await lane.instance.receive()
    task = asyncio.get_running_loop().create_task(lane.instance.receive())
    await turns(2)
    rests = lane.rests
    lane.instance.acknowledge("1-0")
    assert lane.rests == rests + 1
    task.cancel()
    await asyncio.wait([task])


async def play(moves: list[int], acks: bool) -> None:
    lane = Lane(acks=acks)
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Task[int]] = []
    got: list[int] = []

    async def one() -> int:
        number = await number_of(lane.instance)
        got.append(number)
        return number

    put = 0
    for move in moves:
        if move == 0:
            waiting.append(loop.create_task(one()))
        elif move == 1:
            lane.put(put)
            put += 1
        elif move == 2:
            await asyncio.sleep(0)
        elif move == 3 and acks and lane.instance.unfinished:
            lane.instance.acknowledge(lane.instance.unfinished[-1].entry.id)
        elif waiting:
            waiting[move % len(waiting)].cancel()
    await turns(3 * len(moves) + 5)
    in_inbox = [item.entry.message["number"] for item in lane.queue]
    still = [task for task in waiting if not task.done()]
    assert got == list(range(len(got)))
    assert got + in_inbox == list(range(put))
    if not acks or len(lane.instance.unfinished) < MAX_UNACKED:
        assert not (still and in_inbox)
    for task in still:
        task.cancel()
    if still:
        await asyncio.wait(still)
    assert not lane.instance.waiters


@example(moves=[0, 0, 0, 1, 1, 2, 0, 0, 0, 8, 1], acks=False)
@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.booleans())
def test_no_schedule_of_calls_and_cancellations_loses_or_reorders(moves: list[int], acks: bool):
    """0: receive(), 1: put, 2: a turn of the loop, 3: ack, 4-9: cancel one of the receive()s."""
    asyncio.run(play(moves, acks))
