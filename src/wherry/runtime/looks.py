"""Looks: what a worker tells of its scopes when an operator asks.

Nothing is kept for it while nobody asks. Many scopes are gone through in slices, so that the loop
turns meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ..broker.control import Order
from ..model import ScopeId, id_key
from .clock import Clock
from .delivery import Delivery
from .holding import Holding, Holdings, Track

SLICE = 500
"""So many scopes are gone through at a time."""

Row = dict[str, object]
_KEYS: dict[Order, Callable[[Track, int], tuple[int, ...]]] = {
    Order.AGE: lambda track, now_ms: (_oldest_ms(track, now_ms), _waiting(track)),
    Order.WAITING: lambda track, now_ms: (_waiting(track), _oldest_ms(track, now_ms)),
    Order.ATTEMPTS: lambda track, now_ms: (_attempt(track), _oldest_ms(track, now_ms)),
}


class Looks:
    """Looks at the holdings of one worker."""

    __slots__ = ("_clock", "_holdings", "_unix_s")

    def __init__(self, holdings: Holdings, clock: Clock, unix_s: Callable[[], float]) -> None:
        """Tell ages by Redis' clock, and those of ``last_used`` by ``unix_s``."""
        self._holdings = holdings
        self._clock = clock
        self._unix_s = unix_s

    async def scopes(self, order: Order, count: int) -> tuple[int, list[Row]]:
        """How many scopes have an instance or messages in hand, and the first of them.

        Args:
            order: which come first.
            count: how many are described.
        """
        key = _KEYS[order]
        total = 0
        best: list[tuple[tuple[int, ...], int, Track]] = []
        for tracks in self._slices():
            now_ms = self._clock.redis_ms()
            rated = [
                (key(track, now_ms), total + number, track) for number, track in enumerate(tracks)
            ]
            total += len(tracks)
            best = heapq.nlargest(count, [*best, *rated])
            await asyncio.sleep(0)
        # What has ended meanwhile is told of as it is now, or not at all.
        return total, [self._row(track) for _, _, track in best if not track.holding.is_lost]

    def scope(self, scope_id: str) -> Row | None:
        """One scope; None if there is neither an instance nor a message in hand."""
        holding = self._holdings.find(ScopeId(scope_id))
        track = None if holding is None else holding.tracks.get(ScopeId(scope_id))
        return None if track is None else self._row(track)

    def _slices(self) -> Iterator[Sequence[Track]]:
        for holding in self._holdings.all():
            tracks = iter(list(holding.tracks.values()))
            while part := list(islice(tracks, SLICE)):
                yield part

    def _row(self, track: Track) -> Row:
        now_ms = self._clock.redis_ms()
        lane, head = track.lane, _head(track)
        row: Row = {
            "scope": track.scope_id,
            "partition": track.holding.partition,
            "state": self._state(track),
            "waiting": 0 if lane is None else len(lane.input_queue.items),
            "deferred": _deferred(track),
            "oldest_ms": _oldest_ms(track, now_ms),
            "unacknowledged": track.outstanding,
        }
        if head is not None:
            row |= {"entry": head.entry.id, "attempt": head.attempt}
        if lane is not None:
            row["used_ms"] = max(0, int((self._unix_s() - lane.last_used) * 1000))
        pause_s = track.not_before_s - self._clock.now_s()
        if pause_s > 0:
            row["retry_in_ms"] = int(pause_s * 1000)
        return row

    def _state(self, track: Track) -> str:
        lane = track.lane
        if track.is_parked:
            return "held" if _is_held(track) else "parked"
        if lane is None:
            return "absent"
        if lane.is_busy:
            return "busy"
        if track.not_before_s > self._clock.now_s():
            return "backoff"
        if lane.instance is None:
            return "starting"
        return "waiting" if lane.input_queue.items else "idle"


def _head(track: Track) -> Delivery | None:
    """The oldest message in hand: handled, or the first that waits."""
    lane = track.lane
    if lane is None:
        return None
    if lane.instance is not None and lane.instance.unfinished:
        return lane.instance.unfinished[0]
    return next((one for one in lane.input_queue.items if isinstance(one, Delivery)), None)


def _oldest_ms(track: Track, now_ms: int) -> int:
    head = _head(track)
    if head is not None:
        return max(0, now_ms - id_key(head.entry.id)[0])
    first = track.holding.deferred.first_of(track.scope_id)
    return 0 if first is None else max(0, now_ms - id_key(first)[0])


def _waiting(track: Track) -> int:
    lane = track.lane
    return (0 if lane is None else len(lane.input_queue.items)) + _deferred(track)


def _deferred(track: Track) -> int:
    return track.holding.deferred.count_of(track.scope_id) + len(track.refilling or ())


def _attempt(track: Track) -> int:
    head = _head(track)
    return 0 if head is None else head.attempt


def _is_held(track: Track) -> bool:
    holding: Holding = track.holding
    return track.scope_id in holding.held.values()
