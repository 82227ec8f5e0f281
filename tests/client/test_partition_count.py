"""A namespace that was flushed and made anew with another partition count, under a client."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

import wherry
from wherry.broker.connect import open_store
from wherry.broker.link import Link
from wherry.broker.streams import open_namespace, read_streams
from wherry.broker.wire import Keys, pack_message
from wherry.errors import RepliesTrimmed, StoreIncompatible
from wherry.model import ORIGIN, Partition, Reply, partition_of
from wherry.testing import Harness

T = TypeVar("T")

SCOPE = "alice"
KEYS = Keys("wherry")
LOOKS_AGAIN_WITHIN_S = 6.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": "said", "text": message["text"]})


def say(text: str) -> dict[str, Any]:
    return {"type": "say", "text": text}


@dataclass
class Scene:
    """A namespace of 4 partitions, a link, and a client that a test may use in `run`."""

    harness: Harness
    link: Link
    client: wherry.Client

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.harness.run(lambda _: work)

    def send(self, text: str) -> None:
        self.run(self.client.send(SCOPE, say(text)))

    def make_anew(self, partitions: int | None) -> None:
        self.run(make_anew(self.link, partitions))

    def wait(self) -> None:
        self.harness.advance(LOOKS_AGAIN_WITHIN_S)

    def partitions_with_entries(self) -> list[int]:
        sizes = self.run(self.link.calls([("XLEN", KEYS.entries(Partition(n))) for n in range(64)]))
        return [n for n, size in enumerate(sizes) if size]

    def emit(self, partitions: int, text: str) -> None:
        key = KEYS.replies(partition_of(SCOPE, partitions), SCOPE)
        packed = pack_message(say(text), 1000)
        self.run(self.link.call("XADD", key, "*", "m", packed, "i", "", "n", 0, "s", SCOPE))

    def follow(self) -> tuple[list[Reply], asyncio.Task[None]]:
        """Follow the scope in a task, which is live when this returns."""
        events: list[Reply] = []

        async def read() -> None:
            async for event in self.client.replies(SCOPE, follow=True):
                assert isinstance(event, Reply)
                events.append(event)

        async def start() -> asyncio.Task[None]:
            return asyncio.get_running_loop().create_task(read())

        task = self.run(start())
        self.harness.advance(1)
        return events, task


@contextmanager
def scene(**options: Any) -> Iterator[Scene]:
    with Harness(app, workers=0) as harness:
        store = open_store(harness.url)
        link = store.link()
        client = wherry.Client(harness.url, **options)
        made = Scene(harness, link, client)
        made.make_anew(4)
        yield made
        made.run(client.aclose())
        made.run(link.aclose())
        store.close()


async def make_anew(link: Link, partitions: int | None) -> None:
    await link.call("FLUSHALL")
    if partitions is not None:
        await open_namespace(link, KEYS, partitions)


def test_messages_go_to_the_partition_of_the_new_count():
    assert partition_of(SCOPE, 4) != partition_of(SCOPE, 13)
    with scene() as here:
        here.send("a")
        assert here.partitions_with_entries() == [partition_of(SCOPE, 4)]
        here.make_anew(13)
        here.wait()
        here.send("b")
        assert here.partitions_with_entries() == [partition_of(SCOPE, 13)]


def test_request_finds_its_answer_with_the_new_count():
    with scene() as here:
        here.send("a")
        here.make_anew(13)
        here.wait()

        async def answer_by_hand() -> list[Any]:
            task = asyncio.get_running_loop().create_task(here.client.request(SCOPE, say("b")))
            key = KEYS.entries(partition_of(SCOPE, 13))
            (entry,) = (await read_streams(here.link, {key: ORIGIN}, count=1, block_ms=5000))[key]
            fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
            inbox = KEYS.inbox(partition_of(SCOPE, 13), fields[b"r"].decode())
            reply = ("m", fields[b"m"], "i", entry[0], "n", 0, "s", SCOPE, "z", 1, "a", "1.1")
            await here.link.call("XADD", inbox, "*", *reply)
            return await task

        assert here.run(answer_by_hand()) == [say("b")]


def test_without_a_namespace_a_client_keeps_the_count_that_it_knows():
    """The workers write it anew, with the count that they have."""
    with scene() as here:
        here.send("a")
        here.make_anew(None)
        here.wait()
        here.send("b")
        assert here.partitions_with_entries() == [partition_of(SCOPE, 4)]
        assert here.run(here.link.call("EXISTS", KEYS.meta)) == 0


def test_count_that_was_asked_for_is_not_given_up():
    with scene(partitions=4) as here:
        here.send("a")
        here.make_anew(13)
        here.wait()
        with pytest.raises(StoreIncompatible, match="made anew with 13 partitions, but 4 were"):
            here.send("b")
        assert here.partitions_with_entries() == []


def test_follower_that_has_read_nothing_goes_on_in_the_new_partition():
    with scene() as here:
        events, following = here.follow()
        here.make_anew(13)
        here.wait()
        here.wait()
        here.emit(13, "b")
        here.harness.run_until(lambda: bool(events))
        assert [event.message for event in events] == [say("b")]
        here.run(cancel(following))


def test_follower_that_has_read_is_told_that_redis_lost_its_data():
    with scene() as here:
        events, following = here.follow()
        here.emit(4, "a")
        here.harness.run_until(lambda: bool(events))
        here.make_anew(13)
        here.harness.run_until(following.done)
        with pytest.raises(RepliesTrimmed):
            following.result()


def test_count_that_a_follower_asked_for_is_not_given_up():
    with scene(partitions=4) as here:
        _, following = here.follow()
        here.make_anew(13)
        here.harness.run_until(following.done)
        with pytest.raises(StoreIncompatible):
            following.result()


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
