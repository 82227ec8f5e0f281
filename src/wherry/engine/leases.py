"""Leases: which partitions a worker should claim and how many it should let go.

"Shed and grab": everybody computes the fair share alone from the same list of members; who
holds less claims what is free, who holds more sheds. No leader, no live lease is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..model import Partition

BEATS_BEFORE_SHEDDING = 0.9
BEATS_BEFORE_ADOPTING = 1.9
"""A little less than whole beats, which come late or early. Hints make rounds between the beats:
these do not count, or what was just shed would be taken back before its new owner looks."""


def fair_share(partitions: int, members: Sequence[str], worker_id: str) -> int:
    """How many partitions a worker should hold; 0 if it is no member.

    Args:
        partitions: count of the namespace.
        members: living workers in order of joining; the first ones take what does not divide.
        worker_id: who asks.
    """
    if worker_id not in members:
        return 0
    share, rest = divmod(partitions, len(members))
    return share + (1 if members.index(worker_id) < rest else 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in this round.

    Attributes:
        candidates: partitions to try to claim, in this order.
        wanted: how many of them.
        shed: how many of the partitions held should be handed on.
        next_expiry_ms: when the first foreign lease would run out, None without one.
    """

    candidates: Sequence[Partition]
    wanted: int
    shed: int
    next_expiry_ms: int | None


class Balance:
    """Plans the rounds of one worker; remembers since when it is out of balance."""

    __slots__ = ("_beat_ms", "_free_since_ms", "_surplus_since_ms", "_worker_id")

    def __init__(self, worker_id: str, beat_ms: int) -> None:
        """Plan for one worker that beats every ``beat_ms``."""
        self._worker_id = worker_id
        self._beat_ms = beat_ms
        self._surplus_since_ms: int | None = None
        self._free_since_ms: int | None = None

    def plan(
        self,
        members: Sequence[str],
        held: Mapping[Partition, bool],
        survey: Mapping[Partition, tuple[str, int]],
        now_ms: int,
    ) -> Plan:
        """Decide one round.

        Args:
            members: living workers in order of joining.
            held: partitions this worker holds -> whether it is handing them on.
            survey: owner ("" if released) and milliseconds left of every lease.
            now_ms: Redis' time.
        """
        share = fair_share(len(survey), members, self._worker_id)
        keeping = sum(not is_leaving for is_leaving in held.values())
        free = [
            partition
            for partition, (owner, left_ms) in survey.items()
            if partition not in held and (not owner or left_ms <= 0 or owner == self._worker_id)
        ]
        foreign = [
            left_ms
            for owner, left_ms in survey.values()
            if owner and owner != self._worker_id and left_ms > 0
        ]
        surplus = max(0, keeping - share)
        missing = max(0, share - keeping)
        self._surplus_since_ms = _since(self._surplus_since_ms, now_ms) if surplus else None
        left_free = bool(free) and not missing
        self._free_since_ms = _since(self._free_since_ms, now_ms) if left_free else None
        may_shed = not free and self._has_lasted(
            self._surplus_since_ms, BEATS_BEFORE_SHEDDING, now_ms
        )
        if self._has_lasted(self._free_since_ms, BEATS_BEFORE_ADOPTING, now_ms):
            missing = 1
        return Plan(
            candidates=self._rotate(free),
            wanted=min(missing, len(free)),
            shed=surplus if may_shed else 0,
            next_expiry_ms=min(foreign, default=None),
        )

    def _has_lasted(self, since_ms: int | None, beats: float, now_ms: int) -> bool:
        return since_ms is not None and now_ms - since_ms >= beats * self._beat_ms

    def _rotate(self, free: Sequence[Partition]) -> Sequence[Partition]:
        """Let workers that look at the same time begin at different places."""
        if not free:
            return free
        start = sum(self._worker_id.encode()) % len(free)
        return [*free[start:], *free[:start]]


def _since(since_ms: int | None, now_ms: int) -> int:
    """When something began; a clock that was set back starts anew."""
    return now_ms if since_ms is None else min(since_ms, now_ms)
