"""A blocking read is cut short when it leaves a partition out, also where CLIENT is forbidden."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.rig import until
from wherry import Config
from wherry.engine.ledger import Ledger
from wherry.hooks import Hooks
from wherry.model import ORIGIN, Partition, Token
from wherry.runtime.holding import Holding, Holdings
from wherry.runtime.reader import Reader, Reads


class DeafLink:
    """Never answers, may not be unblocked, and takes its time to close its connection."""

    client_id = None
    connects = 0

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.closing = asyncio.Event()
        self.closed = asyncio.Event()

    async def call(self, *command: Any) -> Any:
        self.asked.append(command)
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.closing.set()
            await self.closed.wait()
            raise


class OpenGate:
    def is_settling(self) -> bool:
        return False

    def has_room(self) -> bool:
        return True

    def history_changed(self) -> None:
        raise AssertionError("nothing was answered")


class NoRouter:
    def route(self, holding: Any, raw: Any) -> None:
        raise AssertionError("nothing was answered")


def holding(number: int) -> Holding:
    return Holding(Ledger(partition=Partition(number), token=Token("1:x")), ORIGIN)


def streams(command: tuple[Any, ...]) -> int:
    return (len(command) - command.index("STREAMS") - 1) // 2


async def test_a_read_that_is_being_closed_is_not_cut_short_again():
    link, holdings = DeafLink(), Holdings()
    links: Any = (link, link)
    router: Any = NoRouter()
    holdings.add(holding(0))
    reader = Reader(links, Config(), holdings, Reads(), router, OpenGate(), Hooks())
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.run())
        await until(lambda: link.asked)
        holdings.add(holding(1))
        await link.closing.wait()
        for number in (2, 3, 4):
            holdings.add(holding(number))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not reading.done()
        link.closed.set()
        await until(lambda: len(link.asked) == 2)
        assert [streams(command) for command in link.asked] == [1, 5]
        reading.cancel()
