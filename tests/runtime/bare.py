"""Servers without a network, made from wherry's class or from asgiref's, and how to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asgiref.server
import pytest

from wherry.runtime.server import StatelessServer

LIMIT_S = 5.0

BOTH = [
    pytest.param(StatelessServer, id="wherry"),
    pytest.param(asgiref.server.StatelessServer, id="asgiref"),
]
"""What is tested is the same with both classes: code written for one runs on the other."""

FAULTS = [
    pytest.param(StatelessServer, id="wherry"),
    pytest.param(
        asgiref.server.StatelessServer,
        id="asgiref",
        marks=pytest.mark.xfail(strict=True, raises=(AssertionError, TimeoutError)),
    ),
]
"""A fault of asgiref's class: the test fails on it, and this is asserted."""


async def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - any condition, and it takes no time
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let the loop turn: what needs no time has happened then."""
    for _ in range(count):
        await asyncio.sleep(0)


class Recorder:
    """What a server saw: what applications sent, and their errors."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any]] = []
        self.errors: list[BaseException] = []
        self.stop = asyncio.Event()


def make_server(
    base: type[Any],
    application: Callable[..., Any],
    max_applications: int = 1000,
    **members: Any,
) -> Any:
    """A server that records what is sent and what fails, and runs until ``stop`` is set."""

    class Server(base):
        def __init__(self) -> None:
            super().__init__(application, max_applications)
            self.seen = Recorder()

        async def handle(self) -> None:
            await self.seen.stop.wait()

        async def application_send(self, scope: Any, message: Any) -> None:
            self.seen.sent.append((scope, message))

        async def application_exception(self, exception: Any, application_details: Any) -> None:
            self.seen.errors.append(exception)

        def give(self, scope_id: Any, *messages: Any, scope: Any = None) -> Any:
            scope = {"type": "test", "id": scope_id} if scope is None else scope
            queue = self.get_or_create_application_instance(scope_id, scope)
            for message in messages:
                queue.put_nowait(message)
            return queue

        def texts(self) -> list[Any]:
            return [message for _, message in self.seen.sent]

    for name, member in members.items():
        setattr(Server, name, member)
    return Server()


@asynccontextmanager
async def running(server: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run a server; at the end everything that it left is ended too."""
    others = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(server.arun())
    try:
        await turns(3)
        yield task
        server.seen.stop.set()
        async with asyncio.timeout(LIMIT_S):
            await task
    finally:
        await end_others(others)


async def end_others(others: set[asyncio.Task[Any]]) -> None:
    """Cancel all tasks but these and wait for them."""
    left = asyncio.all_tasks() - others - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=LIMIT_S)
    for task in left:
        if task.done() and not task.cancelled():
            task.exception()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes."""
    while True:
        await send(await receive())


async def close(server: Any) -> None:
    """End what a server runs when only its methods were used, without `arun`."""
    futures = [details["future"] for details in list(server.application_instances.values())]
    if hasattr(server, "_pool"):
        await server._pool.end_all()
    for future in futures:
        future.cancel()
    if futures:
        await asyncio.wait(futures, timeout=LIMIT_S)


Script = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]
