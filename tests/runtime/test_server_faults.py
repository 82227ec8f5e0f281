"""The known faults of asgiref's class: each test fails on it, and passes on ours."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.runtime.bare import (
    BOTH,
    FAULTS,
    echo,
    end_others,
    make_server,
    running,
    turns,
    until,
)

faults = pytest.mark.parametrize("base", FAULTS)
both = pytest.mark.parametrize("base", BOTH)


@faults
async def test_not_one_instance_too_many_at_the_cap(base: Any):
    alive: set[Any] = set()
    most = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        alive.add(scope["id"])
        most = max(most, len(alive))
        try:
            while True:
                await send(await receive())
        finally:
            alive.discard(scope["id"])

    server = make_server(base, application, 3)
    async with running(server):
        for number in range(10):
            server.give(number, number)
            assert len(server.application_instances) <= 3
            await turns()
        assert server.texts() == list(range(10))
        assert most == 3


@faults
async def test_a_busy_instance_is_not_evicted(base: Any):
    go_on = asyncio.Event()
    outcome: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        if message == "slow":
            try:
                await go_on.wait()
                outcome.append("handled")
            except asyncio.CancelledError:
                outcome.append("cut off")
                raise

    server = make_server(base, application, 1)
    async with running(server):
        server.give("busy", "slow")
        await turns()
        for number in range(5):
            server.give(number, "fast")
            await turns()
        go_on.set()
        await until(lambda: outcome)
        assert outcome == ["handled"]


@faults
async def test_a_message_for_a_finished_instance_is_handled(base: Any):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())

    server = make_server(base, application)
    async with running(server):
        queue = server.give("scope", "first")
        future = server.application_instances["scope"]["future"]
        await until(future.done)
        queue.put_nowait("second")  # into the very queue of the finished one
        server.give("scope", "third")
        await turns()
        assert server.texts() == ["first", "second", "third"]


@faults
async def test_messages_behind_the_one_that_was_handled_are_not_lost(base: Any):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())

    server = make_server(base, application)
    async with running(server):
        server.give("scope", 1, 2, 3)
        await turns()
        assert server.texts() == [1, 2, 3]


@faults
@pytest.mark.parametrize("by_task", [False, True], ids=["raises", "cancels its task"])
async def test_an_application_that_cancels_itself_does_not_end_the_server(base: Any, by_task: bool):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        if message == "cancel":
            if by_task:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            raise asyncio.CancelledError
        await send(message)

    server = make_server(base, application, application_checker_interval=0.0)
    async with running(server) as task:
        server.give("one", "cancel")
        await turns()
        assert not task.done()
        server.give("other", "lives")
        await turns()
        assert server.texts() == ["lives"]


@faults
@pytest.mark.parametrize("error", [RuntimeError("hook"), asyncio.CancelledError("hook")], ids=type)
async def test_a_raising_hook_does_not_end_the_server(base: Any, error: BaseException):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(await receive())

    seen: list[str] = []

    async def hook(self: Any, exception: BaseException, details: Any) -> None:
        seen.append(str(exception))
        raise error

    server = make_server(
        base, application, application_exception=hook, application_checker_interval=0.0
    )
    async with running(server) as task:
        server.give(1, "first")
        await turns()
        server.give(2, "second")
        await turns()
        assert seen == ["first", "second"]
        assert not task.done()


@faults
async def test_no_task_is_left_when_the_server_ends(base: Any):
    server = make_server(base, echo)
    others = asyncio.all_tasks()
    try:
        task = asyncio.get_running_loop().create_task(server.arun())
        await turns()
        server.give("scope", "message")
        await turns()
        server.seen.stop.set()
        await task
        left = asyncio.all_tasks() - others
        assert not left
    finally:
        await end_others(others)


class Counted(float):
    """A time that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) < float(other)

    def __gt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) > float(other)

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return float(self) == other

    __hash__ = float.__hash__


@faults
async def test_the_cost_of_an_eviction_does_not_grow_with_the_pool(base: Any):
    """Counted are comparisons of ``last_used``: the way to the oldest."""
    server = make_server(base, echo, 2_000)
    async with running(server):
        for number in range(2_000):
            server.give(number)
        await turns(3)
        for number, details in enumerate(server.application_instances.values()):
            details["last_used"] = Counted(number)
        Counted.comparisons = 0
        for _ in range(10):
            server.delete_oldest_application_instance()
        assert sorted(server.application_instances) == list(range(10, 2_000))
        assert Counted.comparisons < 10 * 30


@faults
async def test_an_error_is_told_without_waiting_for_the_interval(base: Any):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("at once")

    server = make_server(base, application, application_checker_interval=1000.0)
    async with running(server):
        server.give("scope", "message")
        await turns(100)
        assert [str(error) for error in server.seen.errors] == ["at once"]


@faults
async def test_errors_are_logged_by_a_named_logger(base: Any, caplog: pytest.LogCaptureFixture):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("of the application")

    server = make_server(
        base,
        application,
        application_exception=base.application_exception,
        application_checker_interval=0.0,
    )
    async with running(server):
        with caplog.at_level(logging.ERROR):
            server.give("scope", "message")
            await until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.name == "wherry"
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert str(record.exc_info[1]) == "of the application"


@both
async def test_the_fault_tests_run_on_a_server_that_works(base: Any):
    """Or they would fail on asgiref's class for another reason than they say."""
    server = make_server(base, echo)
    async with running(server):
        server.give("one", 1, 2)
        server.give("two", 3)
        await turns()
        assert sorted(server.texts()) == [1, 2, 3]
