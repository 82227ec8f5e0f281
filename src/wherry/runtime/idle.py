"""Idle: the lanes that may be ended to make room, the least recently used first.

What it costs to find that one does not grow with their number: they stand in the order of their
last use, and only those whose ``last_used`` user code has set by hand are kept in a heap.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict

from .lane import Lane

_NOT_IDLE = 0


class Idle:
    """Idle lanes."""

    __slots__ = ("_by_hand", "_heap", "_in_order", "_ticket")

    def __init__(self) -> None:
        """Start empty."""
        self._in_order: OrderedDict[Lane, None] = OrderedDict()
        self._by_hand: dict[Lane, int] = {}  # -> ticket of its entry in the heap
        self._heap: list[tuple[float, int, Lane]] = []  # entries with another ticket are stale
        self._ticket = _NOT_IDLE

    def __contains__(self, lane: object) -> bool:
        """Whether a lane is idle."""
        return lane in self._in_order or self._by_hand.get(lane, _NOT_IDLE) != _NOT_IDLE  # type: ignore[call-overload] - any object may be asked for

    def is_set_by_hand(self, lane: Lane) -> bool:
        """Whether user code has set the lane's ``last_used`` since it was last asked for."""
        return lane in self._by_hand

    def add(self, lane: Lane) -> None:
        """A lane is idle, and was used just now."""
        if lane in self._by_hand:
            self._push(lane)
        else:
            self._in_order.pop(lane, None)
            self._in_order[lane] = None

    def discard(self, lane: Lane) -> None:
        """A lane is not idle."""
        self._in_order.pop(lane, None)
        if self._by_hand and lane in self._by_hand:
            self._by_hand[lane] = _NOT_IDLE

    def forget(self, lane: Lane) -> None:
        """A lane has ended."""
        self._in_order.pop(lane, None)
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
        self._in_order.pop(lane, None)
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
        first = next(iter(self._in_order), None)
        if heap and (first is None or heap[0][0] < first.last_used):
            return heap[0][2]
        return first
