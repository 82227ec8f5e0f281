"""Leaving: the lanes that are ending, by scope, and how long each may take for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .farewell import Farewell
from .lane import Lane


class Leaving:
    """Lanes whose end was asked for and whose task is not done.

    One timer serves all of them: a timer for each would keep hold of every lane that has ended
    in the last seconds.

    Attributes:
        end_timeout_s: how long a cancelled lane may take to end; 0: as long as it likes.
        farewell: what lanes are told before they are cancelled.
    """

    __slots__ = ("_by_scope", "_due", "_expired", "_loop", "end_timeout_s", "farewell")

    def __init__(
        self, end_timeout_s: float, farewell: Farewell, expired: Callable[[Lane], None]
    ) -> None:
        """Call ``expired`` with a lane that takes too long."""
        self.farewell = farewell
        self.end_timeout_s = end_timeout_s
        self._by_scope: dict[Any, list[Lane]] = {}
        self._due: OrderedDict[Lane, float] = OrderedDict()
        self._expired = expired
        self._loop: asyncio.AbstractEventLoop | None = None  # where the timer runs

    def __len__(self) -> int:
        """Number of scopes with a lane that is ending."""
        return len(self._by_scope)

    def all(self) -> list[Lane]:
        """Every lane that is ending."""
        return [lane for lanes in self._by_scope.values() for lane in lanes]

    def of(self, scope_id: Any) -> list[Lane]:
        """The lanes of a scope that are ending, oldest first."""
        return self._by_scope.get(scope_id, [])

    def add(self, lane: Lane) -> bool:
        """A lane is to end; False if that is known."""
        lanes = self._by_scope.setdefault(lane.scope_id, [])
        if lane in lanes:
            return False
        lanes.append(lane)
        return True

    def remove(self, lane: Lane) -> Lane | None:
        """A lane's task is done; gives the lane of its scope that ends after it, if any."""
        self._due.pop(lane, None)
        lanes = self._by_scope.get(lane.scope_id)
        if lanes is None or lane not in lanes:
            return None
        place = lanes.index(lane)
        del lanes[place]
        if not lanes:
            del self._by_scope[lane.scope_id]
        return lanes[place] if place < len(lanes) else None

    def expect(self, lane: Lane) -> None:
        """A lane was cancelled: its time runs."""
        if self.end_timeout_s <= 0 or lane in self._due:
            return
        loop = asyncio.get_running_loop()
        self._due[lane] = loop.time() + self.end_timeout_s
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self.end_timeout_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        now_s = loop.time()
        while self._due:
            lane, due_s = next(iter(self._due.items()))
            if due_s > now_s:
                loop.call_at(due_s, self._look, loop)
                return
            del self._due[lane]
            if not lane.future.done():
                self._expired(lane)
        self._loop = None
