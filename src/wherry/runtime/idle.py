"""Idle: the lanes that may be ended to make room, the least recently used first.

What it costs to find that one does not grow with their number: they stand in the order of their
last use, and only those whose ``last_used`` user code has set by hand are kept in a heap. Each lane
knows its neighbours itself: there are as many as there are idle instances, and a dict that keeps an
order takes 150 bytes for each. A lane that is put to use stays where it stands, as nearly all of
them rest again before anybody looks: whoever comes to it passes over it and takes it out.
"""

from __future__ import annotations

import heapq

from .lane import Lane


class Idle:
    """Idle lanes."""

    __slots__ = ("_by_hand", "_first", "_heap", "_last", "_ticket")

    def __init__(self) -> None:
        """Start empty."""
        self._first: Lane | None = None  # of those in order, the least recently used
        self._last: Lane | None = None
        self._by_hand: dict[Lane, int] = {}  # -> ticket of its last entry in the heap
        self._heap: list[tuple[float, int, Lane]] = []  # entries with another ticket are stale
        self._ticket = 0

    def _take_out(self, lane: Lane) -> None:
        """Take a lane out of the order, if it is there."""
        before, after = lane.used_before, lane.used_after
        if before is not None:
            before.used_after = after
        elif lane is self._first:
            self._first = after
        else:
            return
        if after is not None:
            after.used_before = before
        else:
            self._last = before
        lane.used_before = lane.used_after = None

    def add(self, lane: Lane, now_s: float) -> None:
        """A lane is idle, and was used just now, which is ``now_s`` in Unix time."""
        lane.is_idle = True
        if self._by_hand and lane in self._by_hand:
            self._push(lane)
            return
        lane.last_used = now_s
        self._take_out(lane)
        last = lane.used_before = self._last
        if last is None:
            self._first = lane
        else:
            last.used_after = lane
        self._last = lane

    def use(self, lane: Lane, now_s: float) -> None:
        """A lane is put to use; what user code has set by hand stays until it is asked for."""
        lane.is_idle = False
        if not (self._by_hand and lane in self._by_hand):
            lane.last_used = now_s

    def forget(self, lane: Lane) -> None:
        """A lane has ended."""
        lane.is_idle = False
        self._take_out(lane)
        self._by_hand.pop(lane, None)

    def ask_for(self, lane: Lane, now_s: float) -> None:
        """A lane was asked for: what was set by hand no longer counts."""
        self._by_hand.pop(lane, None)
        lane.last_used = now_s
        if lane.is_idle:
            self.add(lane, now_s)

    def set_by_hand(self, lane: Lane) -> None:
        """User code has set the lane's ``last_used``."""
        self._take_out(lane)
        self._push(lane)

    def _push(self, lane: Lane) -> None:
        self._ticket += 1
        self._by_hand[lane] = self._ticket
        heapq.heappush(self._heap, (lane.last_used, self._ticket, lane))
        if len(self._heap) > 2 * len(self._by_hand) + 64:
            self._heap = [entry for entry in self._heap if self._by_hand.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def oldest(self) -> Lane | None:
        """The least recently used lane, which stays; None if none is idle."""
        heap = self._heap
        while heap and not (heap[0][2].is_idle and self._by_hand.get(heap[0][2]) == heap[0][1]):
            heapq.heappop(heap)
        while (first := self._first) is not None and not first.is_idle:
            self._take_out(first)
        if heap and (first is None or heap[0][0] < first.last_used):
            return heap[0][2]
        return first
