"""Code written for asgiref's class: each test passes on it and on ours, so the two agree."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.compatibility import guarantee_single_callable

from tests.runtime.bare import (
    BOTH,
    close,
    echo,
    end_others,
    make_server,
    running,
    turns,
    until,
)

pytestmark = pytest.mark.parametrize("base", BOTH)


def make_udp_server(base: type[Any], application: Any, most: int = 1000) -> Any:
    """A chat over UDP: an instance for each name, whose scope is its user's address."""

    class UdpServer(base):
        def __init__(self) -> None:
            super().__init__(application, max_applications=most)
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.setblocking(False)
            self.socket.bind(("127.0.0.1", 0))

        async def handle(self) -> None:
            loop = asyncio.get_running_loop()
            while True:
                data, address = await loop.sock_recvfrom(self.socket, 4096)
                command, name, *text = data.decode().split(" ", 2)
                if command == "quit":
                    return
                queue = self.get_or_create_application_instance(name, address)
                queue.put_nowait(text[0].encode() if text else b"welcome")

        async def application_send(self, scope: Any, message: Any) -> None:
            self.socket.sendto(message, scope)

    return UdpServer()


class UdpClient:
    def __init__(self, server: Any) -> None:
        self.address = server.socket.getsockname()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))

    async def ask(self, text: str) -> bytes:
        self.socket.sendto(text.encode(), self.address)
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self.socket, 4096)


class OldStyle:
    """An ASGI 2 application."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        while True:
            await send(await receive())


@pytest.mark.parametrize("application", [echo, OldStyle], ids=["ASGI 3", "ASGI 2"])
async def test_udp_server(base: Any, application: Any):
    server = make_udp_server(base, application)
    client, other = UdpClient(server), UdpClient(server)
    others = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(server.arun())
    try:
        assert await client.ask("register ann") == b"welcome"
        assert await other.ask("register bob") == b"welcome"
        assert await client.ask("to ann hello") == b"hello"
        assert set(server.application_instances) == {"ann", "bob"}
        scope = server.application_instances["ann"]["scope"]
        assert scope == client.socket.getsockname()
        client.socket.sendto(b"quit now", client.address)
        async with asyncio.timeout(5):
            await task
    finally:
        await end_others(others)
        for one in (server, client, other):
            one.socket.close()


async def test_handle_and_methods_work_without_arun(base: Any):
    server = make_udp_server(base, echo, most=10)
    clients = [UdpClient(server) for _ in range(20)]
    task = asyncio.get_running_loop().create_task(server.handle())
    try:
        for number, client in enumerate(clients):
            assert await client.ask(f"register {number}") == b"welcome"
            assert len(server.application_instances) <= 11
        server.delete_application_instance("19")
        assert "19" not in server.application_instances
    finally:
        task.cancel()
        await asyncio.wait([task])
        await close(server)
        for one in (server, *clients):
            one.socket.close()


async def test_the_oldest_instance_is_deleted(base: Any):
    server = make_server(base, echo, 3)
    async with running(server):
        for number in range(3):
            server.give(number, number)
        await turns()
        server.delete_oldest_application_instance()
        assert set(server.application_instances) == {1, 2}
        server.application_instances[2]["last_used"] = 0
        server.delete_oldest_application_instance()
        assert set(server.application_instances) == {1}


async def test_only_one_of_two_equally_old_ones_is_deleted(base: Any):
    server = make_server(base, echo)
    async with running(server):
        for number in range(3):
            server.give(number)
        await turns()
        for details in server.application_instances.values():
            details["last_used"] = 1.0
        server.delete_oldest_application_instance()
        assert len(server.application_instances) == 2


async def test_an_instance_is_deleted_and_its_task_cancelled(base: Any):
    server = make_server(base, echo)
    async with running(server):
        server.give("scope", "message")
        await turns()
        future = server.application_instances["scope"]["future"]
        server.delete_application_instance("scope")
        assert "scope" not in server.application_instances
        await until(future.done)
        assert future.cancelled()
        with pytest.raises(KeyError):
            server.delete_application_instance("scope")


async def test_last_used_can_be_read_and_grows_with_use(base: Any):
    server = make_server(base, echo)
    async with running(server):
        before = time.time()
        server.give("scope")
        used = server.application_instances["scope"]["last_used"]
        assert before <= used <= time.time()
        server.application_instances["scope"]["last_used"] = 1.0
        await turns()
        assert server.application_instances["scope"]["last_used"] == 1.0
        server.give("scope")
        assert server.application_instances["scope"]["last_used"] >= used


async def test_max_applications_may_shrink_and_grow_while_running(base: Any):
    server = make_server(base, echo, 100)
    async with running(server):
        for number in range(50):
            server.give(number, number)
            await turns(3)
        server.max_applications = 10
        server.give("next", "next")
        assert len(server.application_instances) <= 11
        server.max_applications = 30
        for number in range(100, 160):
            server.give(number, number)
            await turns(3)
        assert 30 <= len(server.application_instances) <= 31
        assert server.texts() == [*range(50), "next", *range(100, 160)]


async def test_the_record_of_an_instance_is_a_mapping(base: Any):
    server = make_server(base, echo)
    async with running(server):
        scope = ("any", "type", "of", "scope")
        queue = server.give("scope", scope=scope)
        details = server.application_instances["scope"]
        assert set(details) == {"input_queue", "future", "scope", "last_used"}
        assert details["input_queue"] is queue
        assert details["scope"] is scope
        assert isinstance(details["future"], asyncio.Future)
        assert details.get("missing") is None
        details["mine"] = "kept"
        assert server.application_instances["scope"]["mine"] == "kept"
        assert dict(details)["mine"] == "kept"
        assert details.pop("mine") == "kept"
        assert len(details) == len(details.items()) == 4
        with pytest.raises(KeyError):
            details["mine"]


async def test_the_instances_are_a_mapping(base: Any):
    server = make_server(base, echo)
    async with running(server):
        assert server.application_instances == {}
        assert not server.application_instances
        server.give(1)
        server.give(2)
        instances = server.application_instances
        assert list(instances) == list(instances.keys()) == [1, 2]
        assert [details["scope"]["id"] for details in instances.values()] == [1, 2]
        assert [(key, details["scope"]["id"]) for key, details in instances.items()] == [
            (1, 1),
            (2, 2),
        ]
        assert instances.get(3) is None
        assert 1 in instances
        instances.pop(1)["future"].cancel()
        assert list(instances) == [2]
        assert instances.pop(1, "none") == "none"
        del instances[2]
        assert len(instances) == 0


async def test_scope_ids_may_be_anything_hashable(base: Any):
    server = make_server(base, echo)
    ids = [1, "1", (1, 2), None, frozenset({1}), b"1", 2.5, echo, OldStyle]
    async with running(server):
        for scope_id in ids:
            server.give(scope_id, repr(scope_id))
        await turns()
        assert set(server.application_instances) == set(ids)
        assert sorted(server.texts()) == sorted(map(repr, ids))
        with pytest.raises(TypeError):
            server.give([])
        assert set(server.application_instances) == set(ids)


async def test_the_scope_reaches_application_and_send_as_it_is(base: Any):
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send(await receive())

    server = make_server(base, application)
    scope = ("127.0.0.1", 4711)
    async with running(server):
        server.give("scope", "message", scope=scope)
        await turns()
        assert seen[0] is scope
        assert server.seen.sent[0][0] is scope


class Callables:
    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)


def asgi2_function(scope: Any) -> Callable[..., Any]:
    return OldStyle(scope)


def asgi2_partial(prefix: str, scope: Any) -> Callable[..., Any]:
    return functools.partial(echo, scope)


async def asgi3_partial(prefix: str, scope: Any, receive: Any, send: Any) -> None:
    await echo(scope, receive, send)


def decorated(application: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(application)
    async def inner(*args: Any, **kwargs: Any) -> None:
        await application(*args, **kwargs)

    return inner


def marked(application: Any, mark: str) -> Any:
    setattr(application, mark, True)
    return application


def plain_asgi3(scope: Any, receive: Any, send: Any) -> Any:
    return echo(scope, receive, send)


APPLICATIONS = {
    "function": echo,
    "callable object": Callables(),
    "bound method": Callables().method,
    "decorated": decorated(echo),
    "partial of a coroutine function": functools.partial(asgi3_partial, "prefix"),
    "ASGI 2 class": OldStyle,
    "ASGI 2 function": asgi2_function,
    "ASGI 2 partial": functools.partial(asgi2_partial, "prefix"),
    "ASGI 2 made single": guarantee_single_callable(OldStyle),
    "function marked single": marked(plain_asgi3, "_asgi_single_callable"),
}


@pytest.mark.parametrize("name", APPLICATIONS)
async def test_applications_of_both_styles_run(base: Any, name: str):
    server = make_server(base, APPLICATIONS[name])
    async with running(server):
        server.give("scope", 1, 2)
        await turns()
        assert server.texts() == [1, 2]


async def test_application_may_be_replaced_while_running(base: Any):
    server = make_server(base, echo)

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await send(("other", await receive()))

    async with running(server):
        server.give(1, "a")
        await turns()
        server.application = other
        server.give(2, "b")
        await turns()
        assert server.texts() == ["a", ("other", "b")]


async def test_a_get_or_create_that_calls_super_is_used(base: Any):
    asked: list[Any] = []

    def get_or_create(self: Any, scope_id: Any, scope: Any) -> Any:
        asked.append(scope_id)
        return base.get_or_create_application_instance(self, scope_id, {**scope, "more": 1})

    server = make_server(base, echo, get_or_create_application_instance=get_or_create)
    async with running(server):
        server.give("scope", "message")
        await turns()
        assert asked == ["scope"]
        assert server.seen.sent == [({"type": "test", "id": "scope", "more": 1}, "message")]


def own_get_or_create(self: Any, scope_id: Any, scope: Any) -> Any:
    """Keeps its records itself, as asgiref's class does."""
    if scope_id in self.application_instances:
        self.application_instances[scope_id]["last_used"] = time.time()
        return self.application_instances[scope_id]["input_queue"]
    while len(self.application_instances) > self.max_applications:
        self.delete_oldest_application_instance()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    future = asyncio.ensure_future(
        guarantee_single_callable(self.application)(
            scope=scope,
            receive=queue.get,
            send=lambda message: self.application_send(scope, message),
        )
    )
    self.application_instances[scope_id] = {
        "input_queue": queue,
        "future": future,
        "scope": scope,
        "last_used": time.time(),
    }
    return queue


async def test_a_get_or_create_that_keeps_its_own_records_works(base: Any):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()) != "fail":
            await send(message)
        raise ValueError(message)

    server = make_server(
        base,
        application,
        3,
        get_or_create_application_instance=own_get_or_create,
        application_checker_interval=0.0,
    )
    async with running(server):
        for number in range(6):
            server.give(number, number)
            await turns()
            server.application_instances[number]["last_used"] = number
        assert set(server.application_instances) == {2, 3, 4, 5}
        assert server.texts() == list(range(6))
        server.give(5, "fail")
        await until(lambda: server.seen.errors)
        await turns()
        assert 5 not in server.application_instances
        future = server.application_instances[4]["future"]
        server.delete_application_instance(4)
        await until(future.done)
        assert set(server.application_instances) == {2, 3}


async def test_a_checker_that_calls_super_still_tells_errors(base: Any):
    started: list[bool] = []

    async def checker(self: Any) -> None:
        started.append(True)
        await base.application_checker(self)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(await receive())

    server = make_server(
        base, application, application_checker=checker, application_checker_interval=0.0
    )
    async with running(server):
        server.give(1, "first")
        server.give(2, "second")
        await until(lambda: len(server.seen.errors) == 2)
        await turns()
        assert started == [True]
        assert not server.application_instances
        assert len(server.seen.errors) == 2


async def test_a_checker_of_ones_own_tells_each_error_once(base: Any):
    rounds = 0

    async def checker(self: Any) -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(self.application_checker_interval)
            rounds += 1
            for scope_id, details in list(self.application_instances.items()):
                if details["future"].done():
                    exception = details["future"].exception()
                    if exception:
                        await self.application_exception(exception, details)
                    self.application_instances.pop(scope_id, None)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(await receive())

    server = make_server(
        base, application, application_checker=checker, application_checker_interval=0.0
    )
    async with running(server):
        server.give(1, "first")
        await until(lambda: server.seen.errors)
        done = rounds
        await until(lambda: rounds > done + 5)
        assert [str(error) for error in server.seen.errors] == ["first"]
        assert not server.application_instances


async def test_the_checker_tells_errors_also_beside_a_loop_of_ones_own(base: Any):
    """The way asgiref's class recommends to those who override ``run``."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(await receive())

    server = make_server(base, application, application_checker_interval=0.0)

    async def handle() -> None:
        server.give(1, "first")
        await until(lambda: server.seen.errors)

    checker = asyncio.get_running_loop().create_task(server.application_checker())
    try:
        await handle()
    finally:
        checker.cancel()
        await asyncio.wait([checker])
        await close(server)
    assert [str(error) for error in server.seen.errors] == ["first"]


async def test_the_hook_may_delete_the_instance_that_failed(base: Any):
    told: list[Any] = []

    async def hook(self: Any, exception: BaseException, details: Any) -> None:
        scope_id = details["scope"]["id"]
        assert self.application_instances[scope_id] is details
        assert details["future"].done()
        if scope_id == 1:
            self.delete_application_instance(scope_id)
        else:
            del self.application_instances[scope_id]
        told.append((scope_id, str(exception)))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(await receive())

    server = make_server(
        base, application, application_exception=hook, application_checker_interval=0.0
    )
    async with running(server) as task:
        server.give(1, "first")
        server.give(2, "second")
        await until(lambda: len(told) == 2)
        await turns()
        assert sorted(told) == [(1, "first"), (2, "second")]
        assert not server.application_instances
        assert not task.done()


async def test_handle_that_deletes_all_instances_goes_on(base: Any):
    server = make_server(base, echo)
    async with running(server):
        for number in range(5):
            server.give(number, number)
        await turns()
        for scope_id in list(server.application_instances):
            server.delete_application_instance(scope_id)
        assert not server.application_instances
        server.give(0, "again")
        await turns()
        assert server.texts() == [0, 1, 2, 3, 4, "again"]


async def test_application_send_may_create_instances(base: Any):
    async def forward(self: Any, scope: Any, message: Any) -> None:
        self.seen.sent.append((scope["id"], message))
        if message:
            self.give(message - 1, message - 1)

    server = make_server(base, echo, application_send=forward)
    async with running(server):
        server.give(5, 5)
        await until(lambda: len(server.seen.sent) == 6)
        assert [message for _, message in server.seen.sent] == [5, 4, 3, 2, 1, 0]


async def test_cancelling_the_future_ends_the_instance(base: Any):
    ended: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await echo(scope, receive, send)
        finally:
            ended.append("cleaned up")

    server = make_server(base, application)
    async with running(server):
        server.give("scope", 1)
        await turns()
        details = server.application_instances["scope"]
        details["future"].cancel()
        await until(details["future"].done)
        assert details["future"].cancelled()
        assert ended == ["cleaned up"]


async def test_what_handle_raises_is_raised_by_arun(base: Any):
    class Own(Exception):
        pass

    cause = ValueError("cause")

    async def handle(self: Any) -> None:
        raise Own from cause

    server = make_server(base, echo, handle=handle)
    others = asyncio.all_tasks()
    try:
        with pytest.raises(Own) as raised:
            await server.arun()
        assert raised.value.__cause__ is cause
    finally:
        await end_others(others)


async def test_a_group_that_handle_raises_stays_a_group(base: Any):
    async def handle(self: Any) -> None:
        raise ExceptionGroup("mine", [ValueError("one"), TypeError("two")])

    server = make_server(base, echo, handle=handle)
    others = asyncio.all_tasks()
    try:
        with pytest.raises(ExceptionGroup, match="mine") as raised:
            await server.arun()
        assert len(raised.value.exceptions) == 2
    finally:
        await end_others(others)


async def test_what_the_checker_raises_is_raised_by_arun(base: Any):
    async def checker(self: Any) -> None:
        raise LookupError("checker")

    server = make_server(base, echo, application_checker=checker)
    others = asyncio.all_tasks()
    try:
        with pytest.raises(LookupError, match="checker"):
            await server.arun()
    finally:
        await end_others(others)


async def test_the_two_methods_must_be_overridden(base: Any):
    server = base(echo)
    with pytest.raises(NotImplementedError, match="handle"):
        await server.handle()
    with pytest.raises(NotImplementedError, match="application_send"):
        await server.application_send({}, {})


def test_run_works_in_any_thread_and_more_than_once(base: Any):
    async def handle(self: Any) -> None:
        self.give("scope", "message")
        await until(lambda: self.seen.sent)
        self.seen.sent.clear()
        done.append(threading.current_thread() is threading.main_thread())

    done: list[bool] = []
    server = make_server(base, echo, handle=handle)
    thread = threading.Thread(target=server.run)
    thread.start()
    thread.join(10)
    assert done == [False]
    server.application_instances.clear()
    server.run()
    assert done == [False, True]


def test_run_says_that_it_was_interrupted(base: Any, caplog: pytest.LogCaptureFixture):
    async def handle(self: Any) -> None:
        raise KeyboardInterrupt

    server = make_server(base, echo, handle=handle)
    with caplog.at_level(logging.INFO):
        server.run()
    assert [record.getMessage() for record in caplog.records] == ["Exiting due to Ctrl-C/interrupt"]
    assert caplog.records[0].name == base.__module__.partition(".")[0] + (
        ".server" if "asgiref" in base.__module__ else ""
    )
