"""The worker as an object: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest

from tests.e2e.rig import QUICK, Notes, echo, rig, until, working
from wherry import Config, Worker
from wherry.errors import (
    ConfigError,
    ScopeClosed,
    StoreIncompatible,
    StoreRefused,
    StoreUnavailable,
)


def worker(url: str, application: Any = echo, **settings: Any) -> Worker:
    return Worker(application, url, Config(**QUICK | settings), hooks=Notes())


async def test_unreachable_redis_is_told():
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        await worker("redis://127.0.0.1:1/0", start_wait_s=0.0).arun()


async def test_redis_that_comes_later_is_waited_for(start_server: Any):
    server = start_server()
    server.stop()
    hooks = Notes()
    async with asyncio.TaskGroup() as tasks:
        waiting = Worker(echo, server.url, Config(**QUICK), hooks=hooks)
        running = tasks.create_task(waiting.arun())
        await until(lambda: hooks.count("starting waits for Redis") > 2)
        warned = [data for event, data in hooks.warned if "starting waits" in event]
        assert len(warned) == 1, "it is said once"
        assert str(server.port) in str(warned[0]["reason"])
        await asyncio.to_thread(server.start)
        await waiting.ready()
        async with rig(server.url) as seen:
            await seen.send("a", 1)
            await seen.answered("a", 1)
        waiting.request_stop()
        await running
    assert hooks.count("starting goes on") == 1


@pytest.mark.parametrize("is_silent", [False, True])
async def test_stop_is_heeded_at_once_while_redis_is_waited_for(is_silent: bool):
    """Also while a connection that nobody accepts is being made."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        if is_silent:
            listener.listen()
        hooks = Notes()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        waiting = Worker(echo, url, Config(**QUICK), hooks=hooks)
        running = asyncio.create_task(waiting.arun())
        if is_silent:
            accepted, _ = await asyncio.to_thread(listener.accept)
            stack.enter_context(accepted)
        else:
            await until(lambda: hooks.count("starting waits for Redis"))
        waiting.request_stop()
        async with asyncio.timeout(1):
            await running
        assert waiting.has_drained
        assert not hooks.count("worker started")


async def test_wrong_password_is_told(start_server: Any):
    server = start_server(password="right")
    with pytest.raises(StoreRefused):
        await worker(server.url.replace("right", "wrong")).arun()
    with pytest.raises(StoreRefused):
        await worker(server.url.replace(":right@", "")).arun()


async def test_other_partition_count_is_told(redis_url: str):
    async with rig(redis_url) as seen:
        await seen.send("a", 1)
        with pytest.raises(StoreIncompatible, match="8 partitions"):
            await worker(redis_url, partitions=9).arun()


def test_odd_url_is_told():
    with pytest.raises(ConfigError, match="redis"):
        Worker(echo, "redsi://x")


def test_run_works_in_any_thread(redis_url: str):
    made = worker(redis_url)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:

        async def use() -> None:
            async with rig(redis_url) as seen:
                await seen.send("a", 1)
                await seen.answered("a", 1)

        asyncio.run(use())
    finally:
        loop = next(iter(made.application_instances.values()))["future"].get_loop()
        loop.call_soon_threadsafe(made.request_stop)
        thread.join(10)
    assert not thread.is_alive()
    assert made.has_drained


async def test_memory_store_is_worked_on():
    url = "memory://test-worker"
    async with rig(url) as seen, working(echo, url):
        await seen.send_many([(f"s{n % 10}", n) for n in range(300)])
        await seen.drained()
        for scope in range(10):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 300, 10))
    # A read that was cut short goes on for a while in the imitation of a server.
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_error_in_an_overridden_handle_ends_the_run(redis_url: str):
    class Mine(Worker):
        async def handle(self) -> None:
            raise LookupError("mine")

    made = Mine(echo, redis_url, Config(**QUICK), hooks=Notes())
    with pytest.raises(LookupError, match="mine"):
        await made.arun()


async def test_worker_whose_handle_returns_is_drained(redis_url: str):
    class Mine(Worker):
        async def handle(self) -> None:
            return

    made = Mine(echo, redis_url, Config(**QUICK), hooks=Notes())
    async with asyncio.timeout(10):
        await made.arun()
    async with rig(redis_url) as seen:
        assert set(await seen.owners()) == {""}


async def test_send_after_the_end_raises(redis_url: str):
    late: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                await receive()
        finally:
            try:
                await send({"type": "late"})
            except OSError as error:
                late.append(error)

    async with rig(redis_url) as seen, working(app, redis_url) as made:
        await seen.send("a", 1)
        await seen.drained()
        made.delete_application_instance("a")
        await until(lambda: late)
        assert isinstance(late[0], ScopeClosed)
        assert await seen.replies("a") == []


async def test_items_put_by_hand_are_untracked(redis_url: str):
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            got.append(await receive())

    async with rig(redis_url) as seen, working(app, redis_url) as made:
        made.get_or_create_application_instance("a", {"type": "mine"}).put_nowait({"type": "hand"})
        await until(lambda: len(got) == 1)
        assert got[0] == {"type": "hand"}
        await seen.send("a", 1)
        await seen.drained()
        assert got[1]["number"] == 1


async def test_instance_made_by_hand_before_the_partition_was_claimed_serves_it(redis_url: str):
    """It belongs to no tenure: the entries of the scope go to another one."""
    got: list[tuple[int, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            got.append((id(scope), message))
            await send({"type": "t", "number": message.get("number", -1)})

    async with rig(redis_url) as seen, working(app, redis_url) as made:
        holding = made._holdings.get(seen.partition("a"))
        assert holding is not None
        await seen.send("a", 0)
        await seen.answered("a", 1)
        lease = seen.keys.lease(seen.partition("a"))
        far = 10**15
        await seen.link.call("HSET", lease, "owner", "other", "token", "9:x", "expiry", far)
        await until(lambda: made._holdings.get(seen.partition("a")) is None)
        made.get_or_create_application_instance("a", {"type": "mine"}).put_nowait({"type": "hand"})
        await until(lambda: got[-1][1] == {"type": "hand"})
        await seen.link.call("HSET", lease, "expiry", 1)
        await until(lambda: made._holdings.get(seen.partition("a")) is not None)
        await seen.send("a", 1)
        await seen.drained()
        assert (await seen.numbers("a"))[-1] == 1


async def test_overridden_checker_does_not_keep_errors_from_being_told(redis_url: str):
    told: list[str] = []

    class Mine(Worker):
        async def application_checker(self) -> None:
            await asyncio.Event().wait()

        async def application_exception(self, exception: Any, application_details: Any) -> None:
            told.append(str(exception))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("mine")

    async with rig(redis_url) as seen, working(app, redis_url, kind=Mine, max_attempts=2):
        await seen.send("a", 1)
        await seen.drained()
        await until(lambda: told == ["mine", "mine"])


async def test_restricted_user_who_may_not_unblock_is_served(start_server: Any):
    """Where CLIENT is forbidden a read is cut short by closing its connection."""
    server = start_server()
    rights = ("on", ">pw", "~*", "&*", "+@all", "-client", "-info", "-config")
    server.command("ACL", "SETUSER", "worker", *rights)
    url = server.url.replace("redis://", "redis://worker:pw@")
    async with (
        rig(server.url) as seen,
        working(echo, url, block_s=2.0) as first,
        working(echo, url, block_s=2.0) as second,
    ):
        await seen.send_many([(f"s{n % 20}", n) for n in range(400)])
        await seen.drained()

        async def is_shared() -> bool:
            owners = await seen.owners()
            return all(owners.count(one.worker_id) == 4 for one in (first, second))

        await until(is_shared)
        await seen.send_many([(f"s{n % 20}", n) for n in range(400, 800)])
        await seen.drained()
        for scope in range(20):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 800, 20))
