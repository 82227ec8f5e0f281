"""What `StatelessServer` promises beyond asgiref's class."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import asgiref.compatibility
import asgiref.sync
import pytest

from tests.runtime.bare import echo, end_others, make_server, running, turns, until
from tests.runtime.test_server_dropin import (
    APPLICATIONS,
    Callables,
    OldStyle,
    marked,
    own_get_or_create,
    plain_asgi3,
)
from wherry.errors import ScopeClosed
from wherry.runtime.asgi import is_double_callable
from wherry.runtime.server import StatelessServer

BASE = StatelessServer

COLOUR = ContextVar("COLOUR", default="none")


class Gate:
    """An application that handles "slow" until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.log: list[Any] = []
        self.running: list[Any] = []
        self.most = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running.append(scope["id"])
        self.most = max(self.most, len(self.running))
        try:
            while True:
                message = await receive()
                if message == "slow":
                    await self.open.wait()
                self.log.append((scope["id"], message))
        except asyncio.CancelledError:
            self.log.append((scope["id"], "cancelled"))
            raise
        finally:
            self.running.remove(scope["id"])


async def test_all_busy_a_new_one_waits_for_room_and_starts_when_one_becomes_idle():
    gate = Gate()
    server = make_server(BASE, gate, 2)
    async with running(server):
        server.give(1, "slow")
        server.give(2, "slow")
        server.give(3, "waits")
        await turns(50)
        assert gate.running == [1, 2]
        gate.open.set()
        await until(lambda: (3, "waits") in gate.log)
        assert gate.most == 2
        assert len(server.application_instances) == 2
        assert gate.log[:2] == [(1, "slow"), (2, "slow")]


async def test_those_that_wait_for_room_start_in_their_order():
    gate = Gate()
    server = make_server(BASE, gate, 1)
    async with running(server):
        server.give(0, "slow")
        for number in range(1, 6):
            server.give(number, "next")
        await turns()
        assert gate.running == [0]
        gate.open.set()
        await until(lambda: (5, "next") in gate.log)
        handled = [entry for entry in gate.log if entry[1] == "next"]
        assert handled == [(number, "next") for number in range(1, 6)]
        assert gate.most == 1


async def test_an_instance_that_takes_long_to_end_holds_its_room():
    """The bound is on what runs, not on what is listed."""
    go_on = asyncio.Event()
    alive: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        alive.append(scope["id"])
        try:
            await echo(scope, receive, send)
        finally:
            if scope["id"] == 1:
                await go_on.wait()
            alive.remove(scope["id"])

    server = make_server(BASE, application, 1)
    async with running(server):
        server.give(1, "a")
        await turns()
        server.give(2, "b")
        await turns()
        assert set(server.application_instances) == {2}
        assert alive == [1]
        go_on.set()
        await until(lambda: server.texts() == ["a", "b"])
        assert alive == [2]


async def test_raising_max_applications_lets_those_in_that_wait():
    gate = Gate()
    server = make_server(BASE, gate, 1)
    async with running(server):
        for number in range(4):
            server.give(number, "slow")
        await turns()
        assert gate.running == [0]
        server.max_applications = 2
        await turns()
        assert gate.running == [0, 1]
        thread = threading.Thread(target=setattr, args=(server, "max_applications", 3))
        thread.start()
        thread.join()
        await until(lambda: gate.running == [0, 1, 2])
        gate.open.set()
        await until(lambda: (3, "slow") in gate.log)


async def test_lowering_max_applications_ends_idle_ones_at_the_next_creation():
    gate = Gate()
    server = make_server(BASE, gate, 10)
    async with running(server):
        server.give("busy", "slow")
        for number in range(9):
            server.give(number, "x")
        await turns()
        server.max_applications = 3
        server.give("new", "x")
        await until(lambda: ("new", "x") in gate.log)
        assert set(server.application_instances) == {"busy", 8, "new"}
        gate.open.set()


async def test_no_room_at_all_counts_as_room_for_one():
    server = make_server(BASE, echo, 0)
    async with running(server):
        server.give(1, 1)
        server.give(2, 2)
        await until(lambda: server.texts() == [1, 2])


async def test_the_least_recently_used_idle_one_makes_room():
    server = make_server(BASE, echo, 3)
    async with running(server):
        for number in (1, 2, 3):
            server.give(number, number)
            await turns()
        server.give(1, "again")
        await turns()
        server.give(4, 4)
        assert set(server.application_instances) == {1, 3, 4}
        await turns()
        server.application_instances[4]["last_used"] = 0
        server.give(5, 5)
        assert set(server.application_instances) == {1, 3, 5}


async def test_asking_for_an_instance_is_a_use():
    server = make_server(BASE, echo, 2)
    async with running(server):
        server.give(1)
        server.give(2)
        await turns()
        server.give(1)
        server.give(3)
        assert set(server.application_instances) == {1, 3}


async def test_a_last_used_in_the_future_keeps_an_instance():
    server = make_server(BASE, echo, 2)
    async with running(server):
        server.give("kept", 0)
        await turns()
        server.application_instances["kept"]["last_used"] = float("inf")
        for number in range(20):
            server.give(number, number)
            await turns()
            assert "kept" in server.application_instances
        server.give("kept", "asked for")
        await turns()
        for number in range(2):
            server.give(number, number)
            await turns()
        assert "kept" not in server.application_instances


async def test_deleting_the_oldest_while_all_are_busy_lets_it_finish():
    """So that a loop such as ``while len(...) > n: delete_oldest...()`` comes to an end."""
    gate = Gate()
    server = make_server(BASE, gate)
    async with running(server):
        server.give(1, "slow")
        server.give(2, "slow")
        await turns()
        while len(server.application_instances) > 0:
            server.delete_oldest_application_instance()
        server.delete_oldest_application_instance()
        await turns()
        assert gate.running == [1, 2]
        gate.open.set()
        await until(lambda: not gate.running)
        assert gate.log == [(1, "slow"), (2, "slow"), (1, "cancelled"), (2, "cancelled")]


async def test_messages_of_a_cancelled_future_go_to_a_successor():
    gate = Gate()
    server = make_server(BASE, gate)
    async with running(server) as task:
        queue = server.give("scope", "slow", 1, 2)
        await turns()
        server.application_instances["scope"]["future"].cancel()
        queue.put_nowait(3)
        gate.open.set()
        await until(lambda: ("scope", 3) in gate.log)
        queue.put_nowait(4)
        await until(lambda: ("scope", 4) in gate.log)
        assert [text for _, text in gate.log] == ["cancelled", 1, 2, 3, 4]
        assert not server.seen.errors
        assert not task.done()


@pytest.mark.parametrize("count", range(4))
async def test_messages_survive_a_future_cancelled_before_anything_was_received(count: int):
    """The task is cancelled in each of its first turns."""
    gate = Gate()
    server = make_server(BASE, gate)
    async with running(server):
        server.give("scope", 1, 2)
        future = server.application_instances["scope"]["future"]
        await turns(count)
        future.cancel()
        server.give("scope", 3)
        await until(lambda: ("scope", 3) in gate.log)
        assert [text for _, text in gate.log if text != "cancelled"] == [1, 2, 3]


async def test_messages_survive_a_future_cancelled_while_the_application_prepares_itself():
    prepared = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await prepared.wait()
        await echo(scope, receive, send)

    server = make_server(BASE, application)
    async with running(server):
        for number in range(2):
            server.give("scope", number)
            await turns()
            server.application_instances["scope"]["future"].cancel()
            await turns()
        prepared.set()
        await until(lambda: server.texts() == [0, 1])


async def test_an_application_that_cancels_itself_before_receiving_does_not_go_round_for_ever():
    calls = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        if calls < 50:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        await send(await receive())

    server = make_server(BASE, application)
    async with running(server):
        server.give("scope", 1, 2)
        await until(lambda: "scope" not in server.application_instances)
        await turns()
        assert calls <= 6


@pytest.mark.parametrize("end", ["del", "pop", "clear", "delete", "assign"])
async def test_a_removed_instance_ends_and_its_messages_go_to_a_successor(end: str):
    alive: list[int] = []
    most = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        alive.append(1)
        most = max(most, len(alive))
        try:
            while True:
                message = await receive()
                await turns(3)
                await send(message)
        finally:
            await turns(5)
            alive.pop()

    server = make_server(BASE, application)
    async with running(server):
        queue = server.give("scope", 1)
        await turns()
        queue.put_nowait(2)
        if end == "del":
            del server.application_instances["scope"]
        elif end == "pop":
            server.application_instances.pop("scope")
        elif end == "clear":
            server.application_instances.clear()
        elif end == "assign":
            server.application_instances = {}
        else:
            server.delete_application_instance("scope")
        assert "scope" not in server.application_instances
        queue.put_nowait(3)
        server.give("scope", 4)
        await until(lambda: server.texts() == [1, 2, 3, 4])
        assert most == 1


async def test_a_record_cannot_be_put_back_or_lose_its_queue():
    server = make_server(BASE, echo)
    async with running(server):
        server.give("scope")
        details = server.application_instances.pop("scope")
        with pytest.raises(ValueError, match="cannot be put back"):
            server.application_instances["scope"] = details
        server.give("scope")
        details = server.application_instances["scope"]
        server.application_instances["scope"] = details
        for key in ("input_queue", "future"):
            with pytest.raises(TypeError, match=f"{key} .* cannot be replaced"):
                details[key] = None
            with pytest.raises(TypeError, match=f"{key} .* cannot be removed"):
                del details[key]
        details["scope"] = {"other": 1}
        assert details["scope"] == {"other": 1}
        assert details != dict(details)


async def test_a_record_of_ones_own_takes_the_place_of_an_instance_and_ends_with_the_server():
    server = make_server(BASE, echo)
    others = asyncio.all_tasks()
    async with running(server):
        server.give("scope", 1)
        await turns()
        future = server.application_instances["scope"]["future"]
        own_get_or_create_of = functools.partial(own_get_or_create, server)
        del server.application_instances["scope"]
        queue = own_get_or_create_of("scope", {"id": "own"})
        assert server.get_or_create_application_instance("scope", {}) is queue
        await until(future.done)
        queue.put_nowait("own")
        await until(lambda: server.texts() == [1, "own"])
        server.seen.stop.set()
    assert asyncio.all_tasks() == others


async def test_oldest_is_looked_for_among_own_records_too():
    server = make_server(BASE, echo)
    async with running(server):
        own_get_or_create(server, "own", {"id": "own"})
        server.give("ours", 1)
        await turns()
        server.application_instances["own"]["last_used"] = 5.0
        server.application_instances["ours"]["last_used"] = 4.0
        server.delete_oldest_application_instance()
        assert list(server.application_instances) == ["own"]
        server.give("ours", 1)
        await turns()
        server.delete_oldest_application_instance()
        assert list(server.application_instances) == ["ours"]


async def test_overridden_deletion_is_what_makes_room():
    deleted: list[Any] = []

    def delete(self: Any, scope_id: Any) -> None:
        deleted.append(scope_id)
        BASE.delete_application_instance(self, scope_id)

    server = make_server(BASE, echo, 2, delete_application_instance=delete)
    async with running(server):
        for number in range(4):
            server.give(number, number)
            await turns()
        assert deleted == [0, 1]
        assert len(server.application_instances) == 2


async def test_overridden_deletion_that_raises_or_deletes_nothing_does_no_harm(
    caplog: pytest.LogCaptureFixture,
):
    def delete_oldest(self: Any) -> None:
        if len(self.application_instances) == 2 and 1 in self.application_instances:
            raise ValueError("hook")

    server = make_server(BASE, echo, 2, delete_oldest_application_instance=delete_oldest)
    async with running(server):
        for number in range(6):
            server.give(number, number)
            await turns()
        assert server.texts() == list(range(6))
        assert len(server.application_instances) == 2
    assert "delete_oldest_application_instance() raised" in caplog.text


async def test_the_queue_has_the_face_of_a_queue():
    gate = Gate()
    server = make_server(BASE, gate)
    async with running(server):
        queue = server.give("scope", "slow")
        await turns()
        await queue.put(1)
        queue.put_nowait(2)
        assert (queue.qsize(), queue.empty(), queue.full(), queue.maxsize) == (2, False, False, 0)
        assert queue.get_nowait() == 1
        assert queue.get_nowait() == 2
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_nowait()
        assert queue.empty()


async def test_get_or_create_without_a_loop_leaves_nothing_behind():
    server = make_server(BASE, echo)

    def create() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            server.give("scope")

    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    assert not server.application_instances
    async with running(server):
        server.give("scope", 1)
        await until(lambda: server.texts() == [1])


async def test_what_waits_when_the_server_ends_starts_nothing_new():
    calls = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await receive()
        await asyncio.Event().wait()

    server = make_server(BASE, application)
    async with running(server):
        server.give("scope", 1, 2, 3)
        await turns()
    assert calls == 1
    assert not server.application_instances


async def test_errors_up_to_the_end_are_told():
    """Also those of applications that fail while they are ended."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            raise ValueError(scope["id"])

    async def slow_hook(self: Any, exception: BaseException, details: Any) -> None:
        await turns(30)
        self.seen.errors.append(exception)

    server = make_server(BASE, application, application_exception=slow_hook)
    async with running(server):
        server.give("failed", 1)
        server.give("ended")
        await turns(2)
    assert sorted(str(error) for error in server.seen.errors) == ["ended", "failed"]


async def test_the_hook_is_called_for_one_error_at_a_time():
    inside = 0
    most = 0

    async def hook(self: Any, exception: BaseException, details: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await turns(5)
        inside -= 1
        self.seen.errors.append(exception)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(scope["id"])

    server = make_server(BASE, application, application_exception=hook)
    async with running(server):
        for number in range(5):
            server.give(number, 1)
            await turns(3)
        await until(lambda: len(server.seen.errors) == 5)
    assert [error.args[0] for error in server.seen.errors] == list(range(5))
    assert most == 1


async def test_more_errors_than_wait_are_logged_at_once(caplog: pytest.LogCaptureFixture):
    async def hook(self: Any, exception: BaseException, details: Any) -> None:
        await self.seen.stop.wait()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(scope["id"])

    server = make_server(BASE, application, 5_000, application_exception=hook)
    async with running(server):
        for number in range(1_010):
            server.give(number, 1)
        await until(lambda: not server.application_instances)
        assert len(caplog.records) == 10


async def test_send_after_the_end_raises_an_os_error():
    kept: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        kept.append(send)
        await receive()

    server = make_server(BASE, application)
    async with running(server):
        server.give("scope", 1)
        await turns()
        with pytest.raises(ScopeClosed) as raised:
            await kept[0]("late")
        assert isinstance(raised.value, OSError)
        assert not server.seen.sent


async def test_second_receive_is_logged_once(caplog: pytest.LogCaptureFixture):
    got: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def one() -> None:
            got.append(await receive())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(one())

    server = make_server(BASE, application)
    async with running(server):
        queue = server.give("scope")
        await turns()
        for number in range(3):
            queue.put_nowait(number)
        await until(lambda: len(got) == 3)
    assert got == [0, 1, 2]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "another receive() is waiting" in caplog.text


async def test_an_application_that_swallows_everything_neither_stops_the_loop_nor_the_end(
    caplog: pytest.LogCaptureFixture,
):
    finish = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while not finish.is_set():
            try:
                await send(await receive())
            except BaseException:  # noqa: BLE001 - that is the point
                continue

    server = make_server(BASE, application)
    server._pool._leaving.end_timeout_s = 0.05
    others = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(server.arun())
    await turns()
    server.give("scope", 1)
    await turns()
    future = server.application_instances["scope"]["future"]
    server.seen.stop.set()
    await task
    assert not future.done()
    assert "does not end when it is cancelled" in caplog.text
    finish.set()
    await until(future.done)
    assert asyncio.all_tasks() == others


async def test_an_application_that_logs_errors_and_goes_on_is_ended():
    """The common loop that catches Exception, behind something that swallowed a cancellation."""
    ended: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            try:
                await receive()
            except asyncio.CancelledError:
                pass
            while True:
                try:
                    await send(await receive())
                except Exception:  # noqa: BLE001 - that is the point
                    continue
        finally:
            ended.append(True)

    server = make_server(BASE, application)
    async with running(server):
        server.give("scope")
        await turns()
    assert ended == [True]


async def test_an_interrupted_arun_ends_its_instances():
    server = make_server(BASE, echo)
    others = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(server.arun())
    await turns()
    server.give("scope", 1)
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert asyncio.all_tasks() == others


async def test_a_successor_has_the_context_of_the_server():
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(COLOUR.get())
        await asyncio.Event().wait()

    server = make_server(BASE, application)
    before = COLOUR.set("blue")
    try:
        async with running(server):
            server.give("scope")
            await until(lambda: seen)
            server.application_instances["scope"]["input_queue"].put_nowait("for a successor")
            server.application_instances["scope"]["future"].cancel()
            await until(lambda: len(seen) == 2)
    finally:
        COLOUR.reset(before)
    assert seen == ["blue", "blue"]


@pytest.fixture
def heeded_interrupt() -> Iterator[None]:
    """Who runs tests in the background of a shell has interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupt")
def test_a_real_interrupt_ends_run(caplog: pytest.LogCaptureFixture):
    async def handle(self: Any) -> None:
        self.give("scope", "message")
        await until(lambda: self.seen.sent)
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    server = make_server(BASE, echo, handle=handle)
    with caplog.at_level(logging.INFO, logger="wherry"):
        server.run()
    assert caplog.messages == ["Exiting due to Ctrl-C/interrupt"]
    assert not server.application_instances


async def test_memory_of_instances_is_given_back():
    """Many scopes, touched once each, with room for a hundred; counted are blocks of memory."""
    handled = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal handled
        while True:
            await receive()
            handled += 1

    server = make_server(BASE, application, 100)
    async with running(server):
        blocks: list[int] = []
        for number in range(20_000):
            server.give(number, b"message", scope=number)
            if number % 50 == 49:
                await turns(3)
            if number in (4_999, 19_999):
                gc.collect()
                blocks.append(sys.getallocatedblocks())
        await until(lambda: handled == 20_000)
    assert blocks[1] < blocks[0] + 1_000


TABLE = {
    **APPLICATIONS,
    "plain function": plain_asgi3,
    "lambda": lambda _: echo,
    "object of an ASGI 2 class": OldStyle({}),
    "class with a coroutine __call__": Callables,
    "partial of a class": functools.partial(OldStyle),
    "partial of a callable object": functools.partial(Callables()),
    "class marked single": marked(type("Single", (OldStyle,), {}), "_asgi_single_callable"),
    "coroutine function marked double": marked(functools.partial(echo), "_asgi_double_callable"),
    "not callable": object(),
    "sync_to_async": asgiref.sync.sync_to_async(plain_asgi3),
    "async_to_sync": asgiref.sync.async_to_sync(echo),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_style_of_an_application_is_seen_as_asgiref_sees_it(name: str):
    application = TABLE[name]
    assert is_double_callable(application) == asgiref.compatibility.is_double_callable(application)


async def test_end_others_leaves_nothing():
    """The helper that the tests rely on."""
    others = asyncio.all_tasks()
    asyncio.get_running_loop().create_task(asyncio.Event().wait())
    await end_others(others)
    assert asyncio.all_tasks() == others
