"""What end-to-end tests stand on: a namespace seen from outside, and workers in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgpack

from wherry import Config, Worker
from wherry.broker.connect import Store, open_store
from wherry.broker.link import Link
from wherry.broker.scripts import fit_scripts
from wherry.broker.streams import open_namespace
from wherry.broker.wire import Keys, Meta, read_reply
from wherry.hooks import Hooks
from wherry.model import Partition, Reply, partition_of

PARTITIONS = 8
QUICK: dict[str, Any] = {
    "namespace": "test",
    "partitions": PARTITIONS,
    "lease_s": 1.5,
    "beat_s": 0.2,
    "block_s": 1.0,
    "socket_timeout_s": 3.0,
    "retry_backoff_s": 0.02,
    "drain_timeout_s": 5.0,
    "lifespan": "off",
}

Field = str | bytes | int


async def until(condition: Callable[[], Any], within_s: float = 15.0) -> Any:
    """Return the first true result of a condition, plain or asynchronous."""
    async with asyncio.timeout(within_s):
        while True:
            held = condition()
            if isinstance(held, Awaitable):
                held = await cast("Awaitable[Any]", held)
            if held:
                return held
            await asyncio.sleep(0.005)


class Notes(Hooks):
    """Keeps what a worker reports, with what was in it; warnings also by themselves."""

    __slots__ = ("errors", "said", "warned")

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, dict[str, object]]] = []
        self.errors: list[BaseException] = []
        self.warned: list[tuple[str, dict[str, object]]] = []

    def life(self, event: str, **data: object) -> None:
        self.said.append((event, data))

    def detail(self, event: str, **data: object) -> None:
        self.said.append((event, data))

    def warn(self, event: str, **data: object) -> None:
        self.said.append((event, data))
        self.warned.append((event, data))

    def warn_once(self, event: str, **data: object) -> None:
        if not self.count(event):
            self.warn(event, **data)

    def failed(self, event: str, error: BaseException, **data: object) -> None:
        self.said.append((event, data))
        self.errors.append(error)

    def count(self, text: str) -> int:
        return sum(text in event for event, _ in self.said)


class Rig:
    """A namespace as producers and readers see it."""

    def __init__(self, link: Link, keys: Keys, meta: Meta) -> None:
        self.link = link
        self.keys = keys
        self.partitions = meta.partitions

    def partition(self, scope: str) -> Partition:
        return partition_of(scope, self.partitions)

    def input(self, scope: str) -> str:
        return self.keys.entries(self.partition(scope))

    async def send_fields(self, scope: str, *fields: Field) -> str:
        """Append an entry that consists of these fields alone to the scope's partition."""
        return (await self.link.call("XADD", self.input(scope), "*", *fields)).decode()

    async def send(self, scope: str, message: dict[str, Any] | int, **fields: Field) -> str:
        """Append a message; a number stands for a message that carries it."""
        extra = [part for pair in fields.items() for part in pair]
        return await self.send_fields(scope, "s", scope, "m", packed(message), *extra)

    async def send_many(self, messages: Iterable[tuple[str, dict[str, Any] | int]]) -> list[str]:
        commands = [
            ("XADD", self.input(scope), "*", "s", scope, "m", packed(message))
            for scope, message in messages
        ]
        ids: list[str] = []
        for start in range(0, len(commands), 1000):
            ids += [one.decode() for one in await self.link.calls(commands[start : start + 1000])]
        return ids

    async def replies(self, scope: str, *, inbox: str = "") -> list[Reply]:
        partition = self.partition(scope)
        key = self.keys.inbox(partition, inbox) if inbox else self.keys.replies(partition, scope)
        return [
            read_reply(one, flat) for one, flat in await self.link.call("XRANGE", key, "-", "+")
        ]

    async def numbers(self, scope: str) -> list[int]:
        """The ``number`` of each reply of a scope."""
        return [one.message["number"] for one in await self.replies(scope) if one.message]

    async def answered(self, scope: str, count: int, within_s: float = 15.0) -> list[Reply]:
        """Wait for so many replies; more than these fail."""

        async def enough() -> bool:
            return await self.link.call("XLEN", self._out(scope)) >= count

        await until(enough, within_s)
        replies = await self.replies(scope)
        assert len(replies) == count, replies
        return replies

    def _out(self, scope: str) -> str:
        return self.keys.replies(self.partition(scope), scope)

    async def state(self, scope: str) -> Any:
        """The durable state of a scope, None without."""
        key = self.keys.state(self.partition(scope), scope)
        found = await self.link.call("HGET", key, "state")
        return msgpack.unpackb(found) if found else None

    async def backlog(self) -> int:
        commands = [("XLEN", self.keys.entries(Partition(p))) for p in range(self.partitions)]
        return sum(await self.link.calls(commands))

    async def drained(self, within_s: float = 20.0) -> None:
        """Wait until no entry is left."""

        async def nothing_left() -> bool:
            return await self.backlog() == 0

        try:
            await until(nothing_left, within_s)
        except TimeoutError:
            raise AssertionError(f"{await self.backlog()} entries are left") from None

    async def dead(self) -> list[dict[str, bytes]]:
        """All dead letters, as maps."""
        found: list[dict[str, bytes]] = []
        for number in range(self.partitions):
            key = self.keys.dead(Partition(number))
            for _, flat in await self.link.call("XRANGE", key, "-", "+"):
                found.append(
                    {
                        name.decode(): value
                        for name, value in zip(flat[::2], flat[1::2], strict=True)
                    }
                )
        return found

    async def owners(self) -> list[str]:
        """Owner of each partition, "" without."""
        commands = [
            ("HGET", self.keys.lease(Partition(p)), "owner") for p in range(self.partitions)
        ]
        return [(one or b"").decode() for one in await self.link.calls(commands)]

    async def leftovers(self) -> set[str]:
        """Keys of partitions that live for ever, but for input streams, leases and states."""
        found: set[str] = set()
        for name in await self.link.call("KEYS", f"{{{self.keys.namespace}:*"):
            key = name.decode()
            lasts = key.endswith(("}:lease", "}:in")) or "}:scope:" in key
            if not lasts and await self.link.call("PTTL", key) < 0:
                found.add(key)
        return found


def packed(message: dict[str, Any] | int) -> bytes:
    return msgpack.packb({"type": "n", "number": message} if isinstance(message, int) else message)


@asynccontextmanager
async def rig(url: str, **settings: Any) -> AsyncGenerator[Rig]:
    """Look at the namespace that `working` uses, and make it."""
    config = Config(**QUICK | settings)
    link = open_store(url).link()
    keys = Keys(config.namespace)
    try:
        await fit_scripts(link, memory=url.startswith("memory"))
        yield Rig(link, keys, await open_namespace(link, keys, config.partitions))
    finally:
        await link.aclose()


@asynccontextmanager
async def working(
    application: Any,
    url: str | Store,
    *,
    kind: Callable[..., Worker] = Worker,
    hooks: Hooks | None = None,
    **settings: Any,
) -> AsyncGenerator[Worker]:
    """A ready worker, drained at the end of the block."""
    worker = kind(application, url, Config(**QUICK | settings), hooks=hooks or Notes())
    task = asyncio.create_task(worker.arun(), name="arun")
    ready = asyncio.create_task(worker.ready(), name="ready")
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        yield worker
    finally:
        ready.cancel()
        await asyncio.wait([ready])
        if not task.done():
            worker.request_stop()
        async with asyncio.timeout(20):
            await task


async def crash(worker_task: asyncio.Task[None]) -> None:
    """Cancel a worker's run in the middle; nothing is handed on."""
    worker_task.cancel()
    await asyncio.wait([worker_task])
    assert worker_task.cancelled()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer each message with itself."""
    while True:
        message = await receive()
        await send({"type": "echo", "number": message.get("number")})


def as_json(message: dict[str, Any]) -> str:
    return json.dumps(message)
