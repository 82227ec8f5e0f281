"""Consumers of Django Channels in a worker: each message is finished when it was handled."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from channels.layers import InMemoryChannelLayer
from channels.middleware import BaseMiddleware
from channels.routing import ChannelNameRouter, ProtocolTypeRouter

import wherry
from tests.runtime.channel_layers import in_memory_layer
from wherry.errors import ApplicationError
from wherry.model import Message
from wherry.runtime.consumers import see_consumers
from wherry.testing import Harness

seen: list[tuple[str, str, int]] = []
"""What was handled: kind, text, and the attempt; 0 of what the layer brought."""


@pytest.fixture(autouse=True)
def layer() -> Iterator[InMemoryChannelLayer]:
    seen.clear()
    with in_memory_layer() as made:
        yield made


def note(event: Message) -> None:
    seen.append((event["type"], event.get("text", ""), event.get("wherry", {}).get("attempt", 0)))


class Asynchronous(AsyncConsumer):
    async def join(self, event: Message) -> None:
        note(event)
        await self.channel_layer.group_add("group", self.channel_name)

    async def say(self, event: Message) -> None:
        note(event)
        await self.send({"type": "said", "text": event["text"]})

    async def slow(self, event: Message) -> None:
        await asyncio.sleep(event["takes_s"])
        note(event)
        await self.send({"type": "heard", "text": event.get("text", "")})

    async def busy(self, event: Message) -> None:
        await self.send({"type": "begun"})  # when it is written, the scope is settled
        await asyncio.sleep(event["takes_s"])
        note(event)

    async def stop(self, event: Message) -> None:
        await asyncio.sleep(event["takes_s"])
        note(event)
        await self.send({"type": "stopped"})
        raise StopConsumer

    async def fail(self, event: Message) -> None:
        await asyncio.sleep(event["takes_s"])
        note(event)
        raise ValueError("no luck")


class Synchronous(SyncConsumer):
    """The same in threads. It cannot wait in the harness's time: `go_on` lets it."""

    channel_layer: Any
    channel_name: str
    go_on = threading.Event()

    def join(self, event: Message) -> None:
        from asgiref.sync import async_to_sync

        note(event)
        async_to_sync(self.channel_layer.group_add)("group", self.channel_name)

    def say(self, event: Message) -> None:
        note(event)
        self.send({"type": "said", "text": event["text"]})

    def stop(self, event: Message) -> None:
        assert self.go_on.wait(30)
        note(event)
        raise StopConsumer

    def fail(self, event: Message) -> None:
        note(event)
        raise ValueError("no luck")


class Eager(Asynchronous):
    """Asks for the next message before it handles one, as nothing forbids a consumer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.base_send = scope, send
        asking = asyncio.ensure_future(receive())
        try:
            while True:
                message = await asking
                asking = asyncio.ensure_future(receive())
                await asyncio.sleep(0)
                await self.dispatch(message)
        finally:
            asking.cancel()


def routed(consumer: type[AsyncConsumer]) -> Any:
    return ProtocolTypeRouter({"channel": ChannelNameRouter({"wherry": consumer.as_asgi()})})


def tell_group(harness: Harness, layer: InMemoryChannelLayer, **message: Any) -> None:
    harness.run(lambda _: layer.group_send("group", message))


def replies(harness: Harness) -> list[Message | None]:
    return [reply.message for reply in harness.replies("alice")]


def test_message_that_comes_while_a_layer_handler_stops_the_consumer_is_handled(
    layer: InMemoryChannelLayer,
):
    with Harness(routed(Asynchronous)) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()
        tell_group(harness, layer, type="stop", takes_s=2)
        harness.send("alice", {"type": "say", "text": "hi"})
        harness.advance(1)
        assert seen == [("join", "", 1)]
        harness.advance(2)
        assert seen == [("join", "", 1), ("stop", "", 0), ("say", "hi", 1)]
        assert replies(harness) == [{"type": "stopped"}, {"type": "said", "text": "hi"}]
        assert harness.failures == []
        assert harness.backlog() == 0


def test_message_that_comes_while_a_layer_handler_fails_is_not_to_blame(
    layer: InMemoryChannelLayer,
):
    with Harness(routed(Asynchronous), max_attempts=1) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()
        tell_group(harness, layer, type="fail", takes_s=2)
        harness.send("alice", {"type": "say", "text": "hi"})
        harness.advance(3)
        assert seen == [("join", "", 1), ("fail", "", 0), ("say", "hi", 1)]
        assert [str(one.error) for one in harness.failures] == ["no luck"]
        assert harness.dead_letters() == []


def test_what_a_layer_handler_sends_answers_no_message(layer: InMemoryChannelLayer):
    with Harness(routed(Asynchronous)) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()
        tell_group(harness, layer, type="slow", text="all", takes_s=2)
        said = harness.send("alice", {"type": "say", "text": "hi"})
        harness.advance(3)
        assert [(one.message, one.cause) for one in harness.replies("alice")] == [
            ({"type": "heard", "text": "all"}, ""),
            ({"type": "said", "text": "hi"}, said),
        ]


def test_consumer_at_work_for_its_layer_is_not_idle(layer: InMemoryChannelLayer):
    """It would be cut off to make room for another scope."""
    with Harness(routed(Asynchronous), max_applications=1) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()
        tell_group(harness, layer, type="busy", takes_s=2)
        assert replies(harness) == [{"type": "begun"}]
        harness.send("bob", {"type": "say", "text": "hi"})
        harness.advance(1)
        assert seen == [("join", "", 1)]
        harness.advance(2)
        assert seen == [("join", "", 1), ("busy", "", 0), ("say", "hi", 1)]


def test_message_whose_handler_stops_the_consumer_is_finished():
    with Harness(routed(Asynchronous)) as harness:
        assert harness.request("alice", {"type": "stop", "takes_s": 0}) == [{"type": "stopped"}]
        assert harness.request("alice", {"type": "say", "text": "hi"}) == [
            {"type": "said", "text": "hi"}
        ]
        assert seen == [("stop", "", 1), ("say", "hi", 1)]
        assert harness.failures == []
        assert harness.backlog() == 0


@pytest.mark.parametrize("consumer", [Asynchronous, Synchronous])
def test_message_whose_handler_raises_is_tried_again_and_then_a_dead_letter(
    consumer: type[AsyncConsumer],
):
    with Harness(routed(consumer), max_attempts=2) as harness:
        harness.send("alice", {"type": "fail", "takes_s": 0})
        harness.send("alice", {"type": "say", "text": "hi"})
        harness.advance(60)
        assert seen == [("fail", "", 1), ("fail", "", 2), ("say", "hi", 1)]
        assert len(harness.dead_letters("alice")) == 1


def test_message_is_not_finished_before_its_handler_is_done():
    with Harness(routed(Eager)) as harness:
        harness.send("alice", {"type": "slow", "text": "first", "takes_s": 5})
        harness.send("alice", {"type": "say", "text": "second"})
        harness.advance(2)
        assert harness.backlog() == 2
        harness.crash()
        harness.advance(10)
        assert seen == [("slow", "first", 1), ("say", "second", 1)]
        assert replies(harness) == [
            {"type": "heard", "text": "first"},
            {"type": "said", "text": "second"},
        ]


def test_message_that_came_during_a_layer_handler_survives_a_crash(layer: InMemoryChannelLayer):
    with Harness(routed(Asynchronous)) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()
        tell_group(harness, layer, type="slow", takes_s=5)
        harness.send("alice", {"type": "say", "text": "hi"})
        harness.advance(1)
        harness.crash()
        harness.settle()
        assert seen == [("join", "", 1), ("say", "hi", 1)]
        assert harness.backlog() == 0


def test_synchronous_consumer_that_stops_for_its_layer_loses_no_message(
    layer: InMemoryChannelLayer,
):
    async def next_message(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        Synchronous.go_on.set()

    Synchronous.go_on.clear()
    names = {"wherry": Synchronous.as_asgi(), "plain": next_message}
    with Harness(ProtocolTypeRouter({"channel": ChannelNameRouter(names)})) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()

        async def stop_and_say(client: wherry.Client) -> None:
            await layer.group_send("group", {"type": "stop"})
            await client.send("alice", {"type": "say", "text": "hi"})
            # When this one is handled the one before is in the worker's hands.
            await client.send("bob", {"type": "go on"}, channel="plain")

        harness.run(stop_and_say)
        harness.settle()
        assert seen == [("join", "", 1), ("stop", "", 0), ("say", "hi", 1)]
        assert replies(harness) == [{"type": "said", "text": "hi"}]
        assert harness.failures == []


class Passing(BaseMiddleware):
    pass


def hidden(application: Any) -> Any:
    """A middleware that nobody can look through, though it bears a consumer's marks."""

    @functools.wraps(application)
    async def called(scope: Any, receive: Any, send: Any) -> None:
        await application(dict(scope), lambda: receive(), lambda message: send(message))

    return called


def loses_nothing(application: Any, layer: InMemoryChannelLayer) -> bool:
    """Whether a message survives a consumer that stops while it waits."""
    seen.clear()
    with Harness(application) as harness:
        harness.send("alice", {"type": "join"})
        harness.settle()
        tell_group(harness, layer, type="stop", takes_s=2)
        harness.send("alice", {"type": "say", "text": "hi"})
        harness.advance(3)
        return ("say", "hi", 1) in seen


@pytest.mark.parametrize(
    ("application", "is_seen"),
    [
        (Asynchronous.as_asgi(), True),
        (routed(Asynchronous), True),
        (Passing(routed(Asynchronous)), True),
        (ChannelNameRouter({"wherry": Passing(Passing(Asynchronous.as_asgi()))}), True),
        (hidden(Asynchronous.as_asgi()), False),
        (hidden(wherry.acknowledging(Asynchronous.as_asgi())), True),
        (wherry.acknowledging(routed(Asynchronous)), True),
    ],
    ids=["alone", "routed", "middleware", "middlewares", "hidden", "hidden and said", "said"],
)
def test_consumers_are_seen(application: Any, is_seen: bool, layer: InMemoryChannelLayer):
    assert loses_nothing(application, layer) is is_seen


def test_what_was_given_is_not_changed():
    names = ChannelNameRouter({"wherry": Asynchronous.as_asgi()})
    router = ProtocolTypeRouter({"channel": names, "websocket": Synchronous.as_asgi()})
    before = dict(names.application_mapping)
    seen = see_consumers(router)
    assert seen is not router
    assert router.application_mapping["channel"] is names
    assert names.application_mapping == before
    for other in (hidden(Asynchronous.as_asgi()), ProtocolTypeRouter({}), Passing(print)):
        assert see_consumers(other) is other


async def test_consumer_that_acknowledges_is_as_it_was_outside_wherry():
    application: Any = wherry.acknowledging(Asynchronous.as_asgi())
    assert application.consumer_class is Asynchronous
    assert application.__name__ == "Asynchronous"
    messages = [{"type": "say", "text": "hi"}, {"type": "stop", "takes_s": 0}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await application({"type": "channel"}, receive, send)
    assert sent == [{"type": "said", "text": "hi"}, {"type": "stopped"}]


@pytest.mark.parametrize(
    "application", [print, wherry.acknowledging(Asynchronous.as_asgi()), ProtocolTypeRouter({})]
)
def test_saying_it_of_what_is_no_consumer_is_a_mistake(application: Any):
    with pytest.raises(ApplicationError, match=r"YourConsumer\.as_asgi\(\)"):
        wherry.acknowledging(application)


def test_channels_is_not_imported_to_look_for_its_consumers():
    code = """
import sys
from wherry.testing import Harness

async def app(scope, receive, send):
    while True:
        await send(await receive())

with Harness(app) as harness:
    harness.request("alice", {"type": "a"})
print(sorted({name.partition(".")[0] for name in sys.modules} & {"channels", "django", "asgiref"}))
"""
    output = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)
    assert output == "[]\n"
