"""Stores in memory: imitations of Redis within this process, by name.

Each has a clock, which tests may replace: entries, leases and keys expire by it. Who waits is
woken in the order of waiting, which fakeredis leaves to chance: a run can be repeated.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, cast
from weakref import WeakValueDictionary

import fakeredis

CLOCK_KEY = "wherry-clock"
"""Key that tells scripts of a store in memory its time, milliseconds (``lua/memory_clock.lua``).

Without it they ask for the computer's time. Whoever replaces the clock keeps it up to date.
"""

# Fakeredis does not export it, but a server has some.
_Database = cast("type[Any]", type(fakeredis.FakeServer().dbs[0]))


class MemoryServer(fakeredis.FakeServer):
    """One store in memory.

    Attributes:
        unix_s: its clock: seconds since 1970.
    """

    def __init__(self) -> None:
        """Start empty, with the computer's clock."""
        super().__init__()
        self.unix_s: Callable[[], float] = time.time
        self.dbs = defaultdict(lambda: _MemoryDatabase(self.lock, self))
        self.subscribers = cast("Any", defaultdict(_Subscribers))


class _MemoryDatabase(_Database):
    """A database of fakeredis whose keys expire by its server's clock."""

    def __init__(self, lock: Any, server: MemoryServer) -> None:
        self._server = server
        self._blocked: dict[Callable[[], None], None] = {}
        super().__init__(lock)  # pyright: ignore[reportUnknownMemberType] - fakeredis has no types

    def add_change_callback(self, callback: Callable[[], None]) -> None:
        """A client blocks."""
        self._blocked[callback] = None

    def remove_change_callback(self, callback: Callable[[], None]) -> None:
        """It does not block any more."""
        del self._blocked[callback]

    def wake_all(self) -> None:
        """Let all blocked clients look again, in the order in which they came."""
        self.condition.notify_all()
        for callback in list(self._blocked):
            callback()

    @property
    def time(self) -> float:
        return self._server.unix_s()

    @time.setter
    def time(self, now_s: float) -> None:
        """Fakeredis tells the computer's time before each command: not asked for."""


class _Subscribers:
    """A weak set of connections in the order in which they subscribed."""

    def __init__(self) -> None:
        self._connections: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._numbers = itertools.count()

    def add(self, connection: Any) -> None:
        if connection not in self:
            self._connections[next(self._numbers)] = connection

    def discard(self, connection: Any) -> None:
        for number, one in list(self._connections.items()):
            if one is connection:
                del self._connections[number]

    remove = discard

    def __contains__(self, connection: object) -> bool:
        return any(one is connection for one in self)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._connections.values()))

    def __len__(self) -> int:
        return len(self._connections)


_servers: dict[str, MemoryServer] = {}


def memory_server(name: str) -> MemoryServer:
    """The store of a name; it is made when it is first asked for."""
    return _servers.setdefault(name, MemoryServer())


def drop_memory(name: str) -> None:
    """Forget the store of a name; it ends with the last that still uses it."""
    _servers.pop(name, None)
