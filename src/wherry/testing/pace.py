"""Pace: decides, whenever an event loop has nothing left to run, whether time may move.

It stands in the place of the loop's selector: that is where a loop waits, so nothing else of the
loop need be known or changed.
"""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import HarnessError

OUTSIDE_S = 0.05
"""Real seconds that sockets get to say something before time is moved on purpose."""

Events = list[tuple[selectors.SelectorKey, int]]


class Reached(Exception):
    """Stops the loop: the condition of the run is true."""


class Rested(Exception):
    """Stops the loop: nothing is left to run, and time may not move further."""


class Pace(selectors.BaseSelector):
    """The selector of a loop whose time is virtual.

    Attributes:
        now_s: the loop's time.
        jobs: how many threads work for the loop.
    """

    def __init__(self, on_move: Callable[[float], None] | None, patience_s: float) -> None:
        """Start at 0; see `VirtualLoop` for the arguments."""
        self.now_s = 0.0
        self.jobs = 0
        self._real = selectors.DefaultSelector()
        self._own = 0
        self._on_move = on_move
        self._patience_s = patience_s
        self._horizon_s = 0.0
        self._until: Callable[[], bool] | None = None
        self._is_moved = False
        self._stirred_at_s = 0.0

    def is_ready(self) -> None:
        """The loop is made: the sockets that there are by now are its own."""
        self._own = len(self._real.get_map())

    def begin(self, horizon_s: float, until: Callable[[], bool] | None, *, is_moved: bool) -> None:
        """A run begins.

        Args:
            horizon_s: time may move so far.
            until: the run ends before the step at which this is true.
            is_moved: time is moved on purpose, and need not keep step with the world outside.
        """
        self._horizon_s = horizon_s
        self._until = until
        self._is_moved = is_moved
        self._stirred_at_s = time.monotonic()

    def select(self, timeout: float | None = None) -> Events:
        """What is ready outside; called by the loop before each of its steps.

        Raises:
            Reached: the condition of the run is true; nothing is lost, the loop may be run again.
            Rested: the same, as nothing is left to do.
            HarnessError: patience is at its end.
        """
        if self._until is not None and self._until():
            raise Reached
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0):
            self._check_patience()
            return events
        due_s = math.inf if timeout is None else self.now_s + timeout
        if self.jobs:
            events = self._real.select(self._patience_s)
            self._check_patience()
            return events
        if len(self._real.get_map()) > self._own:
            events = self._wait_outside(min(due_s, self._horizon_s) - self.now_s)
            if events or (not self._is_moved and self.now_s < min(due_s, self._horizon_s)):
                return events
        if math.isfinite(due_s) and due_s <= self._horizon_s:
            self._move(due_s)
            return []
        if math.isfinite(self._horizon_s):
            self._move(self._horizon_s)
        raise Rested

    def _wait_outside(self, limit_s: float) -> Events:
        """Let sockets speak, for as long as time has to pass anyway."""
        if self._is_moved:
            return self._real.select(OUTSIDE_S)
        started_s = time.monotonic()
        events = self._real.select(min(limit_s, self._patience_s))
        self._move(self.now_s + min(limit_s, time.monotonic() - started_s))
        return events

    def _move(self, to_s: float) -> None:
        if to_s > self.now_s:
            self.now_s = to_s
            self._stirred_at_s = time.monotonic()
            if self._on_move is not None:
                self._on_move(to_s)

    def _check_patience(self) -> None:
        if time.monotonic() - self._stirred_at_s > self._patience_s:
            self._stirred_at_s = time.monotonic()
            busy = "a thread of the application has not returned" if self.jobs else (
                "the application has been busy without ever waiting"
            )  # fmt: skip
            raise HarnessError(
                f"{busy} for {self._patience_s:g} real seconds, and the harness gives up; "
                "look for an endless loop, or for a wait on something that only a test can bring"
            )

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real selector does."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As the real selector does."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real selector does."""
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As the real selector does."""
        return self._real.get_map()

    def close(self) -> None:
        """As the real selector does."""
        self._real.close()
