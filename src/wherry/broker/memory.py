"""Stores in memory: imitations of Redis within this process, by name.

Each has a clock, which tests may replace: entries, leases and keys expire by it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import fakeredis

CLOCK_KEY = "wherry-clock"
"""Key that tells the scripts of a store in memory its time, milliseconds (``lua/memory_clock.lua``).

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
        self.dbs = defaultdict(lambda: _ClockedDatabase(self.lock, self))


class _ClockedDatabase(_Database):
    """A database of fakeredis whose keys expire by its server's clock."""

    def __init__(self, lock: Any, server: MemoryServer) -> None:
        self._server = server
        super().__init__(lock)

    @property
    def time(self) -> float:
        return self._server.unix_s()

    @time.setter
    def time(self, now_s: float) -> None:
        """Fakeredis tells the computer's time before each command: not asked for."""


_servers: dict[str, MemoryServer] = {}


def memory_server(name: str) -> MemoryServer:
    """The store of a name; it is made when it is first asked for."""
    return _servers.setdefault(name, MemoryServer())


def drop_memory(name: str) -> None:
    """Forget the store of a name; it ends with the last that still uses it."""
    _servers.pop(name, None)
