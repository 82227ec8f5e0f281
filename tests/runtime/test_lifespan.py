"""The lifespan protocol around a worker's run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.rig import Notes, rig, working
from wherry import Config, Worker
from wherry.errors import StartupFailed
from wherry.runtime.lifespan import Lifespan

App = Callable[[Any, Any, Any], Awaitable[None]]


def lifespan(app: App, mode: str = "auto", limit_s: float = 0.1) -> tuple[Lifespan, Notes]:
    hooks = Notes()
    return Lifespan(app, Config(lifespan=mode, lifespan_timeout_s=limit_s), hooks), hooks


async def obedient(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    assert scope["asgi"]["version"] == "3.0"
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["pool"] = "made"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    scope["state"]["pool"] = "closed"
    await send({"type": "lifespan.shutdown.complete"})


async def test_startup_and_shutdown_run_once_around_the_block():
    span, hooks = lifespan(obedient, "on")
    async with span:
        assert span.state == {"pool": "made"}
    assert span.state == {"pool": "closed"}
    assert hooks.said == []


async def test_off_asks_nothing():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not called")

    span, _ = lifespan(app, "off")
    async with span:
        pass


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError(f"no scope of type {scope['type']}")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


async def silent(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.Event().wait()


async def loop(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await receive()


@pytest.mark.parametrize("app", [refuses, returns, silent, loop])
async def test_application_without_lifespan_is_tolerated_unless_it_is_demanded(app: App):
    span, _ = lifespan(app)
    async with asyncio.timeout(5), span:
        pass
    span, _ = lifespan(app, "on")
    with pytest.raises(StartupFailed, match="'lifespan = on'"):
        async with asyncio.timeout(5), span:
            pass


async def test_plain_receive_loop_is_not_waited_for():
    """It calls `receive()` again without an answer: no need to wait out the time limit."""
    span, hooks = lifespan(loop, limit_s=60.0)
    async with asyncio.timeout(2), span:
        pass
    assert hooks.count("does not answer lifespan.startup") == 1


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_failed_startup_is_told(mode: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    span, _ = lifespan(app, mode)
    with pytest.raises(StartupFailed, match="no database"):
        async with span:
            pass


async def test_error_in_the_shutdown_is_reported_and_changes_nothing():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("late")

    span, hooks = lifespan(app)
    async with span:
        pass
    assert hooks.count("raised in its lifespan") == 1


async def test_shutdown_that_hangs_is_cut_off():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    span, _ = lifespan(app)
    async with asyncio.timeout(5), span:
        pass


async def test_worker_hands_each_instance_a_copy_of_the_state(redis_url: str):
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["shared"] = []
            order.append("up")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            order.append("down")
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope["state"]["shared"].append(scope["scope_id"])
        scope["state"]["own"] = 1
        await send({"type": "t", "number": len(scope["state"]["shared"])})
        await receive()
        order.append("message")

    async with rig(redis_url) as seen:
        async with working(app, redis_url, lifespan="auto"):
            await seen.send("a", 1)
            await seen.drained()
            await seen.send("b", 1)
            await seen.drained()
        assert order == ["up", "message", "message", "down"]
        assert await seen.numbers("b") == [2]


async def test_worker_whose_application_fails_to_start_claims_nothing(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async with rig(redis_url) as seen:
        with pytest.raises(StartupFailed, match="no database"):
            await Worker(app, redis_url, Config(namespace="test")).arun()
        assert set(await seen.owners()) == {""}
