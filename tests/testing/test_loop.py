"""The event loop whose time stands still."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from wherry.errors import HarnessError, WrongLoop
from wherry.testing.loop import VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop(patience_s=0.3)
    yield made
    if not made.is_closed():
        made.finish()
    gc.collect()


async def note(log: list[float], *waits_s: float) -> None:
    for wait_s in waits_s:
        await asyncio.sleep(wait_s)
        log.append(asyncio.get_running_loop().time())


def test_settling_does_not_move_time(loop: VirtualLoop):
    log: list[float] = []
    loop.start(note(log, 0, 0, 5), name="a", group="g")
    loop.settle()
    assert log == [0, 0]
    assert loop.time() == 0


def test_advancing_stops_at_each_timer(loop: VirtualLoop):
    log: list[float] = []
    loop.start(note(log, 1, 2, 4), name="a", group="g")
    loop.start(note(log, 2), name="b", group="g")
    loop.advance(6.5)
    assert log == [1, 2, 3]
    assert loop.time() == 6.5
    loop.advance(0.5)
    assert log == [1, 2, 3, 7]


def test_whoever_keeps_time_is_told_before_what_is_due_runs():
    told: list[float] = []
    loop = VirtualLoop(on_move=told.append)
    log: list[float] = []

    async def work() -> None:
        await asyncio.sleep(3)
        log.append(told[-1])

    loop.run(work())
    assert log == told == [3]
    loop.finish()


def test_a_day_passes_at_once(loop: VirtualLoop):
    log: list[float] = []
    loop.run(note(log, 3 * 86_400))
    assert log == [3 * 86_400]


def test_running_returns_the_result_or_raises(loop: VirtualLoop):
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("mine")

    async def answer() -> int:
        return 42

    assert loop.run(answer()) == 42
    with pytest.raises(ValueError, match="mine"):
        loop.run(fail())


def test_waiting_for_nothing_is_an_error(loop: VirtualLoop):
    with pytest.raises(HarnessError, match="nothing will bring"):
        loop.run(asyncio.Event().wait())


def test_condition_stops_the_loop_between_two_steps(loop: VirtualLoop):
    steps: list[int] = []

    async def count() -> None:
        while True:
            steps.append(len(steps))
            await asyncio.sleep(0)

    loop.start(count(), name="count", group="g")
    assert loop.run_until(lambda: len(steps) == 7)
    assert len(steps) == 7
    assert loop.run_until(lambda: len(steps) == 8)
    assert len(steps) == 8


def test_condition_that_cannot_come_true_is_told(loop: VirtualLoop):
    log: list[float] = []
    loop.start(note(log, 1), name="a", group="g")
    assert not loop.run_until(lambda: False)
    assert log == [1]


def test_killed_group_takes_all_that_it_started_with_it(loop: VirtualLoop):
    ended: list[str] = []

    async def last(name: str) -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            ended.append(name)
            raise

    async def first(name: str) -> None:
        tasks = [asyncio.create_task(last(f"{name}{number}")) for number in range(3)]
        await asyncio.wait(tasks)

    loop.start(first("a"), name="a", group="a")
    survivor = loop.start(first("b"), name="b", group="b")
    loop.settle()
    loop.kill("a")
    assert ended == ["a0", "a1", "a2"]
    loop.advance(1)
    assert survivor.done()
    assert not survivor.cancelled()


def test_task_that_will_not_die_is_told(loop: VirtualLoop):
    async def immortal() -> None:
        while not may_end:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    may_end: list[bool] = []
    loop.start(immortal(), name="immortal", group="g")
    loop.settle()
    with pytest.raises(HarnessError, match="immortal"):
        loop.kill("g")
    may_end.append(True)


def test_endless_loop_runs_into_the_limit(loop: VirtualLoop):
    async def busy() -> None:
        while True:
            await note([], 0)

    loop.start(busy(), name="busy", group="g")
    with pytest.raises(HarnessError, match="without ever waiting"):
        loop.settle()


def test_thread_that_never_returns_runs_into_the_limit(loop: VirtualLoop):
    released = threading.Event()
    loop.start(asyncio.to_thread(released.wait), name="thread", group="g")
    with pytest.raises(HarnessError, match="thread"):
        loop.settle()
    released.set()
    loop.settle()


def test_time_stands_still_while_a_thread_works(loop: VirtualLoop):
    log: list[float] = []

    async def work() -> None:
        await asyncio.to_thread(threading.Event().wait, 0.1)
        log.append(asyncio.get_running_loop().time())

    loop.start(note(log, 1), name="a", group="g")
    loop.run(work())
    assert log == [0]


def test_with_sockets_open_time_is_not_faster_than_the_computers(loop: VirtualLoop):
    async def work() -> str:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            await asyncio.sleep(0.2)
        return "slept"

    started_s = time.monotonic()
    assert loop.run(work()) == "slept"
    assert time.monotonic() - started_s >= 0.15


def test_it_does_not_run_within_another_loop(loop: VirtualLoop):
    async def nested() -> None:
        for call in (loop.settle, lambda: loop.advance(1), lambda: loop.kill("g")):
            with pytest.raises(WrongLoop):
                call()
        with pytest.raises(WrongLoop):
            loop.run(asyncio.sleep(0))

    asyncio.run(nested())


def test_nothing_is_left_when_it_is_finished():
    threads = threading.active_count()
    ended: list[str] = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    async def work() -> None:
        generators.append(numbers())
        await anext(generators[0])
        await asyncio.to_thread(int)

    generators = []
    loop = VirtualLoop()
    loop.run(work())
    loop.finish()
    assert ended == ["generator"]
    assert loop.is_closed()
    assert threading.active_count() == threads
