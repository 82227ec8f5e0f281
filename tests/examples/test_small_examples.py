"""The echo and the Channels consumer, as real workers run them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.examples.processes import processes
from wherry import Client, Reply


@contextlib.asynccontextmanager
async def served(application: str, url: str) -> AsyncGenerator[Client]:
    """A worker process of an example, and a client."""
    async with processes() as started, Client(url) as client:
        worker = await started.worker(application, url)
        await worker.worker_id()
        yield client
        assert await worker.end() == 0, "\n".join(worker.lines)


@pytest.mark.limit_s(60)
async def test_echo_answers(redis_url: str):
    async with served("examples.echo.app:application", redis_url) as client:
        assert await client.request("a", {"type": "say", "text": "hello"}) == [
            {"type": "echo", "text": "hello"}
        ]
        await client.send("b", {"type": "say", "text": "1"})
        await client.request("b", {"type": "say", "text": "2"})
        texts = [reply.message["text"] for reply in await kept(client, "b") if reply.message]
        assert texts == ["1", "2"]


@pytest.mark.limit_s(60)
async def test_a_channels_consumer_reaches_its_group(redis_url: str):
    async with served("examples.channels_consumer.app:application", redis_url) as client:
        for person in ("ann", "bob"):
            joined = await client.request(person, {"type": "room.join", "room": "tea"})
            assert joined == [{"type": "room.joined", "room": "tea"}]
        await client.send("ann", {"type": "room.say", "room": "tea", "text": "hello"})
        heard = {"type": "room.heard", "by": "ann", "text": "hello"}
        for person in ("ann", "bob"):
            assert (await next_of_type(client, person, "room.heard")).message == heard


@pytest.mark.limit_s(60)
async def test_a_wrong_message_type_is_the_consumers_error_and_no_other_scopes(redis_url: str):
    """Channels' own dispatch refuses it; a person who behaves is not held up."""
    async with served("examples.channels_consumer.app:application", redis_url) as client:
        await client.send("eve", {"type": "room.burn"})
        answer = await client.request("ann", {"type": "room.join", "room": "tea"})
        assert answer == [{"type": "room.joined", "room": "tea"}]


async def kept(client: Client, scope_id: str) -> list[Reply]:
    return [one async for one in client.replies(scope_id) if isinstance(one, Reply)]


async def next_of_type(client: Client, scope_id: str, kind: str) -> Reply:
    following: AsyncGenerator[Any] = client.replies(scope_id, follow=True)
    async with contextlib.aclosing(following) as replies:
        async for reply in replies:
            if isinstance(reply, Reply) and reply.message and reply.message["type"] == kind:
                return reply
    raise AssertionError("replies ended")
