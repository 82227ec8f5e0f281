"""Idle: the lanes that may be ended to make room, the least recently used first.

What it costs to find that one does not grow with their number: they stand in the order of their
last use, and only those whose ``last_used`` user code has set by hand are kept in a heap. Each lane
knows its neighbours itself: there are as many as there are idle instances, and a dict that keeps an
order takes 150 bytes for each.
"""

from __future__ import annotations

import heapq

from .lane import Lane

_NOT_IDLE = 0


class Idle:
    """Idle lanes."""

    __slots__ = ("_by_hand", "_first", "_heap", "_last", "_ticket")

    def __init__(self) -> None:
        """Start empty."""
        self._first: Lane | None = None  # of those in order, the least recently used
        self._last: Lane | None = None
        self._by_hand: dict[Lane, int] = {}  # -> ticket of its entry in the heap
        self._heap: list[tuple[float, int, Lane]] = []  # entries with another ticket are stale
        self._ticket = _NOT_IDLE

    def _is_in_order(self, lane: Lane) -> bool:
        return lane.used_before is not None or lane is self._first

    def _append(self, lane: Lane) -> None:
        """Put a lane that is not in order behind all others."""
        last = lane.used_before = self._last
        if last is None:
            self._first = lane
        else:
            last.used_after = lane
        self._last = lane

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

    def __contains__(self, lane: Lane) -> bool:
        """Whether a lane is idle."""
        return self._is_in_order(lane) or self._by_hand.get(lane, _NOT_IDLE) != _NOT_IDLE

    def is_set_by_hand(self, lane: Lane) -> bool:
        """Whether user code has set the lane's ``last_used`` since it was last asked for."""
        return lane in self._by_hand

    def add(self, lane: Lane) -> None:
        """A lane is idle, and was used just now."""
        if lane in self._by_hand:
            self._push(lane)
        else:
            self._take_out(lane)
            self._append(lane)

    def discard(self, lane: Lane) -> None:
        """A lane is not idle."""
        self._take_out(lane)
        if self._by_hand and lane in self._by_hand:
            self._by_hand[lane] = _NOT_IDLE

    def forget(self, lane: Lane) -> None:
        """A lane has ended."""
        self._take_out(lane)
        self._by_hand.pop(lane, None)

    def touch(self, lane: Lane) -> None:
        """A lane was asked for: what was set by hand no longer counts."""
        is_idle = lane in self
        self._by_hand.pop(lane, None)
        if is_idle:
            self.add(lane)

    def set_by_hand(self, lane: Lane) -> None:
        """User code has set the lane's ``last_used``."""
        is_idle = lane in self
        self._take_out(lane)
        self._by_hand[lane] = _NOT_IDLE
        if is_idle:
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
        while heap and self._by_hand.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        first = self._first
        if heap and (first is None or heap[0][0] < first.last_used):
            return heap[0][2]
        return first
