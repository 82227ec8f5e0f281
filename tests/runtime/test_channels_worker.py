"""Django Channels' own worker, its class body unchanged, on our base class."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import channels.worker
import pytest
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.layers import InMemoryChannelLayer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter

from tests.runtime.bare import end_others, until
from tests.runtime.channel_layers import in_memory_layer
from wherry.runtime.server import StatelessServer


def rebased(base: type[Any]) -> type[Any]:
    """Channels' Worker as it would be had its module imported another base class."""
    worker = type("Worker", (base,), {})
    for name, member in vars(channels.worker.Worker).items():
        code = getattr(member, "__code__", None)
        if code is not None:
            has_super = "__class__" in code.co_freevars
            setattr(worker, name, with_class(member, worker) if has_super else member)
    return worker


def with_class(function: Any, cls: type[Any]) -> Any:
    """The function with its ``super()`` bound to another class."""

    def cell() -> Any:
        __class__ = cls
        return (lambda: __class__).__closure__[0]  # type: ignore[index] - it has one

    return type(function)(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, (cell(),)
    )


Worker = rebased(StatelessServer)


class Log:
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.threads: set[int] = set()


log = Log()


class Asynchronous(AsyncConsumer):
    async def test_print(self, event: dict[str, Any]) -> None:
        log.seen.append(("async", self.scope.get("channel"), event["text"]))

    async def test_group(self, event: dict[str, Any]) -> None:
        await self.channel_layer.group_add("group", self.channel_name)
        log.seen.append(("joined", event["text"]))

    async def test_from_group(self, event: dict[str, Any]) -> None:
        log.seen.append(("group", event["text"]))

    async def test_other(self, event: dict[str, Any]) -> None:
        await self.channel_layer.send("synchronous", {"type": "test.print", "text": event["text"]})

    async def test_fail(self, event: dict[str, Any]) -> None:
        raise ValueError(event["text"])


class Synchronous(SyncConsumer):
    def test_print(self, event: dict[str, Any]) -> None:
        log.threads.add(threading.get_ident())
        log.seen.append(("sync", self.scope.get("channel"), event["text"]))

    def test_back(self, event: dict[str, Any]) -> None:
        async_to_sync(self.channel_layer.send)(
            "asynchronous", {"type": "test.print", "text": event["text"]}
        )


application = ProtocolTypeRouter(
    {
        "channel": ChannelNameRouter(
            {"asynchronous": Asynchronous.as_asgi(), "synchronous": Synchronous.as_asgi()}
        )
    }
)


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    log.seen.clear()
    log.threads.clear()
    with in_memory_layer() as made:
        yield made


@asynccontextmanager
async def working(layer: Any, **options: Any) -> AsyncIterator[Any]:
    worker = Worker(application, ["asynchronous", "synchronous"], layer, **options)
    others = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(worker.arun())
    try:
        yield worker
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        # Channels' handle() leaves the listeners that it started, and never awaits them.
        listening = asyncio.all_tasks() - others
        assert all("listener" in repr(one) for one in listening)
        await end_others(others)


async def test_it_is_channels_own_worker_on_our_class(layer: InMemoryChannelLayer):
    assert Worker.__mro__[1] is StatelessServer
    assert Worker.handle is channels.worker.Worker.handle
    assert Worker.listener is channels.worker.Worker.listener
    worker = Worker(application, ["one"], layer, max_applications=7)
    assert (worker.channels, worker.channel_layer) == (["one"], layer)
    assert worker.max_applications == 7
    with pytest.raises(ValueError, match="not valid"):
        Worker(application, [], None)


async def test_messages_reach_asynchronous_and_synchronous_consumers(layer: InMemoryChannelLayer):
    async with working(layer) as worker:
        for text in ("a", "b", "c"):
            await layer.send("asynchronous", {"type": "test.print", "text": text})
            await layer.send("synchronous", {"type": "test.print", "text": text})
        await until(lambda: len(log.seen) == 6)
        assert [entry for entry in log.seen if entry[0] == "async"] == [
            ("async", "asynchronous", text) for text in "abc"
        ]
        assert [entry for entry in log.seen if entry[0] == "sync"] == [
            ("sync", "synchronous", text) for text in "abc"
        ]
        assert threading.get_ident() not in log.threads
        assert set(worker.application_instances) == {"asynchronous", "synchronous"}


async def test_consumers_send_through_the_layer_and_listen_to_groups(layer: InMemoryChannelLayer):
    async with working(layer):
        await layer.send("asynchronous", {"type": "test.other", "text": "over"})
        await until(lambda: ("sync", "synchronous", "over") in log.seen)
        await layer.send("synchronous", {"type": "test.back", "text": "back"})
        await until(lambda: ("async", "asynchronous", "back") in log.seen)
        await layer.send("asynchronous", {"type": "test.group", "text": "me"})
        await until(lambda: ("joined", "me") in log.seen)
        await layer.group_send("group", {"type": "test.from_group", "text": "all"})
        await until(lambda: ("group", "all") in log.seen)


async def test_a_failing_consumer_is_logged_and_the_next_message_gets_a_new_one(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
):
    async with working(layer):
        await layer.send("asynchronous", {"type": "test.fail", "text": "fails"})
        await layer.send("asynchronous", {"type": "test.print", "text": "lives"})
        await until(lambda: ("async", "asynchronous", "lives") in log.seen)
        await until(lambda: caplog.records)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("wherry", "ERROR")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "fails"


async def test_consumers_make_room_for_each_other(layer: InMemoryChannelLayer):
    async with working(layer, max_applications=1) as worker:
        for text in ("a", "b", "c", "d"):
            for channel in ("asynchronous", "synchronous"):
                await layer.send(channel, {"type": "test.print", "text": text})
                await until(lambda: any(e[1:] == (channel, text) for e in log.seen))  # noqa: B023 - used at once
                assert len(worker.application_instances) <= 1
        assert len(log.seen) == 8


async def test_a_message_without_a_type_ends_the_worker_with_an_error(layer: InMemoryChannelLayer):
    """As Channels has it: what a listener raises comes out of arun()."""
    worker = Worker(application, ["asynchronous"], layer)
    others = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(worker.arun())
    try:
        await layer.send("asynchronous", {"text": "no type"})
        with pytest.raises(ValueError, match="no type"):
            await task
        assert asyncio.all_tasks() == others
    finally:
        await end_others(others)
