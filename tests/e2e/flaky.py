"""A store whose links can be told to fail, to lose answers and to be late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wherry.broker.connect import PooledLink, Store, open_store
from wherry.broker.link import Command, Link
from wherry.broker.subscription import Subscription
from wherry.errors import StoreUnavailable

Calls = Callable[[Sequence[Command]], Awaitable[list[Any]]]


class FlakyLink:
    """A link that asks its store before and after what goes over it."""

    def __init__(self, store: FlakyStore, link: Link) -> None:
        self._store = store
        self._link = link

    @property
    def connects(self) -> int:
        return self._link.connects

    @property
    def client_id(self) -> int | None:
        return self._link.client_id

    @property
    def joins_slots(self) -> bool:
        return self._link.joins_slots

    async def call(self, *command: Any) -> Any:
        if command[0] == "XREAD":
            return await self._store.around_read(lambda: self._link.call(*command))
        return await self._link.call(*command)

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        if commands and commands[0][0] in ("EVALSHA", "EVAL") and is_commit(commands[0]):
            return await self._store.around_commits(self._link.calls, commands)
        if commands and commands[0][0] == "XRANGE":
            return await self._store.around_fetch(self._link.calls, commands)
        return await self._link.calls(commands)

    async def subscribe(self, *channels: str) -> Subscription:
        assert isinstance(self._link, PooledLink)
        return await self._link.subscribe(*channels)

    async def aclose(self) -> None:
        await self._link.aclose()


def is_commit(command: Command) -> bool:
    """Whether it runs the commit script, which names the input stream first."""
    return str(command[3]).endswith("}:in") and str(command[4]).endswith("}:lease")


class FlakyStore:
    """Stands for a `Store`; replace what is around its calls."""

    def __init__(self, url: str) -> None:
        self._store: Store = open_store(url)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def around_read(self, read: Callable[[], Awaitable[Any]]) -> Any:
        return await read()

    async def around_commits(self, calls: Calls, commands: Sequence[Command]) -> list[Any]:
        return await calls(commands)

    async def around_fetch(self, calls: Calls, commands: Sequence[Command]) -> list[Any]:
        return await calls(commands)

    def link(self, *, answer_timeout_s: float | None = 10.0) -> Any:
        return FlakyLink(self, self._store.link(answer_timeout_s=answer_timeout_s))

    def single_link(self, *, answer_timeout_s: float | None = 10.0) -> Any:
        return FlakyLink(self, self._store.single_link(answer_timeout_s=answer_timeout_s))


def lost() -> StoreUnavailable:
    return StoreUnavailable("the answer was lost, as the test wants it")


class LateReads(FlakyStore):
    """Holds the answer of a read back until it is told to let it go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.is_holding = False
        self.held: list[Any] = []
        self.release = asyncio.Event()

    async def around_read(self, read: Callable[[], Awaitable[Any]]) -> Any:
        answer = await read()
        if self.is_holding and answer:
            self.held.append(answer)
            await self.release.wait()
        return answer
