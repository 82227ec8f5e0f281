"""Turns: at most so many lanes are busy at a time; the others wait, first come first served."""

from __future__ import annotations

from .lane import Lane


class Turns:
    """Counts the busy lanes of one worker.

    Attributes:
        busy: how many there are.
    """

    __slots__ = ("_most", "_waiting", "busy")

    def __init__(self, most: int) -> None:
        """Let so many be busy."""
        self.busy = 0
        self._most = most
        self._waiting: dict[Lane, None] = {}  # in the order in which they came

    def take(self, lane: Lane) -> bool:
        """Let a lane be busy; False if it must wait, and then it is woken."""
        if self.busy >= self._most:
            self._waiting[lane] = None
            return False
        self.busy += 1
        return True

    def give_back(self) -> None:
        """A lane is no longer busy: let the next one start."""
        self.busy -= 1
        if self._waiting:
            self.pass_on()

    def pass_on(self) -> None:
        """A lane may have been woken, and have ended before it began: wake the next one."""
        while self._waiting and self.busy < self._most:
            lane = next(iter(self._waiting))
            del self._waiting[lane]
            if lane.is_open and lane.input_queue:
                lane.wake()
                return
