"""Room: which lanes may call the application, and which wait for room to do so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .lane import Lane


class Room:
    """At most so many lanes run; the others wait, first come first served.

    Attributes:
        waiting: lanes that wait, in the order in which they came; changed here only.
    """

    __slots__ = ("_most", "_running", "waiting")

    def __init__(self, most: Callable[[], int]) -> None:
        """Ask ``most`` each time how many may run: it may change."""
        self._most = most
        self._running: set[Lane] = set()
        self.waiting: dict[Lane, asyncio.Future[None]] = {}

    def enter(self, lane: Lane) -> bool:
        """Let a lane run, if there is room and nobody was here before."""
        if self.waiting or len(self._running) >= self._most():
            return False
        self._running.add(lane)
        return True

    def wait(self, lane: Lane) -> asyncio.Future[None]:
        """Let a lane wait; the future is done when it may run."""
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting[lane] = room
        return room

    def let_in(self) -> bool:
        """Let the next lane run; False if there is no room."""
        if len(self._running) >= self._most():
            return False
        lane = next(iter(self.waiting))
        self._running.add(lane)
        room = self.waiting.pop(lane)
        if not room.done():
            room.set_result(None)
        return True

    def leave(self, lane: Lane) -> None:
        """A lane does not run, and does not wait, any more."""
        self._running.discard(lane)
        self.waiting.pop(lane, None)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the loop of whoever waits; from any thread."""
        for room in list(self.waiting.values())[:1]:
            room.get_loop().call_soon_threadsafe(callback)
