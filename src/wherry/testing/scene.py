"""Scene: what a harness has while it runs: store, clock, loop, client and workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from ..broker.blocking import BlockingLink
from ..broker.connect import open_store
from ..broker.memory import CLOCK_KEY, drop_memory, memory_server
from ..broker.wire import Keys
from ..client.client import Client
from ..config import DEFAULT_PARTITIONS, Config
from ..hooks import Hooks
from ..model import Application
from .fleet import Fleet
from .look import Look
from .loop import VirtualLoop


class Scene:
    """Builds the parts on one another, and takes them down in the opposite order.

    Attributes:
        loop: everything runs in it.
        client: sends and reads.
        look: reads what the client does not.
        fleet: the workers; none at first.
    """

    def __init__(self, url: str, application: Application, config: Config, hooks: Hooks) -> None:
        """Make a store in memory with a clock of its own, and what works on it."""
        name = url.removeprefix("memory://")
        self._stack = ExitStack()
        store = open_store(url)
        self._stack.callback(drop_memory, name)
        ticker = store.sync_link()
        self._stack.callback(ticker.close)
        self.loop = loop = VirtualLoop(on_move=_make_clock(name, ticker))
        self._stack.callback(loop.finish)
        link = store.link()
        self._stack.callback(lambda: loop.run(link.aclose()))
        partitions = config.partitions or DEFAULT_PARTITIONS
        self.look = Look(link, Keys(config.namespace), partitions)
        self.client = client = Client(store, config=config)
        self._stack.callback(lambda: loop.run(client.aclose()))
        self.fleet = Fleet(loop, application, store, config, hooks)

    def close(self, *, drains: bool) -> None:
        """Forget everything; the workers drain before, or are killed."""
        with self._stack:
            if drains:
                self.fleet.drain()


def _make_clock(name: str, ticker: BlockingLink) -> Callable[[float], None]:
    """Tie a store to a clock; returns what must be told its time whenever it has moved."""
    # Whole milliseconds: how fractions are rounded must not depend on when a test was started.
    server, started_ms = memory_server(name), int(time.time()) * 1000
    unix_ms = started_ms
    server.unix_s = lambda: unix_ms / 1000

    def move(to_s: float) -> None:
        nonlocal unix_ms
        unix_ms = started_ms + round(to_s * 1000)
        ticker.call("SET", CLOCK_KEY, unix_ms)

    move(0.0)
    return move
