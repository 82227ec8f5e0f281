"""Who takes part in a test of the suite, each with the URL, and so the rights, of its part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from tests.e2e.rig import QUICK, Rig, rig, until, working
from tests.stores import NAMESPACE, Place
from wherry import Client, Config, Worker

SETTINGS: dict[str, Any] = QUICK | {"namespace": NAMESPACE, "durable_state": True}


@asynccontextmanager
async def seeing(place: Place) -> AsyncGenerator[Rig]:
    """The namespace, seen by somebody who may see everything; the outermost of a test."""
    async with rig(place.url, namespace=NAMESPACE) as seen:
        yield seen
    if not place.is_shared:
        # A read that was cut short goes on for a while in the imitation of a server.
        await until(lambda: len(asyncio.all_tasks()) == 1)


def at_work(application: Any, place: Place, **more: Any) -> AbstractAsyncContextManager[Worker]:
    """A ready worker."""
    if not place.is_shared:
        more = {"block_s": 0.2} | more
    return working(application, place.url_of("worker"), **SETTINGS | more)


def client(place: Place, part: str = "producer", **more: Any) -> Client:
    return Client(place.url_of(part), config=Config(**SETTINGS | more))


async def totals(scope: Any, receive: Any, send: Any) -> None:
    """Add the numbers up in the durable state, and answer with the total and the number."""
    durable = scope["durable"]
    while True:
        message = await receive()
        durable["total"] = durable.get("total", 0) + message["number"]
        await send({"type": "total", "total": durable["total"], "number": message["number"]})


async def check(seen: Rig, sent: dict[str, list[int]]) -> None:
    """Wait for the end: each message has had one effect, in the order of its scope."""
    await seen.drained(60)
    for scope, numbers in sent.items():
        replies = [one.message for one in await seen.replies(scope) if one.message]
        assert [one["number"] for one in replies] == numbers
        assert [one["total"] for one in replies] == [
            sum(numbers[: count + 1]) for count in range(len(numbers))
        ]
        assert await seen.state(scope) == {"total": sum(numbers)}
    assert await seen.dead() == []
