"""Leases: which partitions a worker should claim and how many it should let go.

"Shed and grab": everybody computes the fair share alone from the same list of members; who
holds less claims what is free, who holds more sheds. No leader, no live lease is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from ..model import Partition

BEATS_BEFORE_SHEDDING = 0.9
BEATS_BEFORE_LEAVING_OUT = 2.9
BEATS_BEFORE_STEPPING_BACK = 1.9
"""A little less than whole beats, which come late or early. Hints make rounds between the beats:
these do not count, or what was just shed would be taken back before its new owner looks. A member
knows of itself before the others are sure."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do in this round.

    Attributes:
        candidates: partitions to try to claim, in this order.
        wanted: how many of them.
        shed: how many of the partitions held should be handed on.
        next_expiry_ms: when the first foreign lease would run out, None without one.
        is_left_out: the others share this worker's part among them, or soon will, because it
            did not claim what was free.
    """

    candidates: Sequence[Partition]
    wanted: int
    shed: int
    next_expiry_ms: int | None
    is_left_out: bool


@dataclass(slots=True, eq=False)
class _Member:
    """What was seen of a member.

    Attributes:
        joined_ms: when it joined; one that joins anew is another.
        owned: live leases in its name.
        short_since_ms: since when it has too little and claims nothing.
        is_left_out: its part is shared among the others.
    """

    joined_ms: int
    owned: int
    short_since_ms: int | None = None
    is_left_out: bool = False


class Balance:
    """Plans the rounds of one worker; remembers since when somebody is out of balance."""

    __slots__ = ("_beat_ms", "_free_since_ms", "_seen", "_surplus_since_ms", "_worker_id")

    def __init__(self, worker_id: str, beat_ms: int) -> None:
        """Plan for one worker that beats every ``beat_ms``."""
        self._worker_id = worker_id
        self._beat_ms = beat_ms
        self._free_since_ms: dict[Partition, int] = {}
        self._seen: dict[str, _Member] = {}
        self._surplus_since_ms: int | None = None

    def plan(
        self,
        members: Mapping[str, int],
        held: Mapping[Partition, bool],
        survey: Mapping[Partition, tuple[str, int]],
        now_ms: int,
    ) -> Plan:
        """Decide one round.

        Args:
            members: living workers -> when they joined (Redis' time), in that order.
            held: partitions this worker holds -> whether it is handing them on.
            survey: owner ("" if released) and milliseconds left of every lease.
            now_ms: Redis' time.
        """
        me = self._worker_id
        keeping = sum(not is_leaving for is_leaving in held.values())
        free = [
            partition
            for partition, (owner, left_ms) in survey.items()
            if partition not in held and (not owner or left_ms <= 0 or owner == me)
        ]
        foreign = [left_ms for owner, left_ms in survey.values() if owner not in ("", me)]
        owned = Counter(owner for owner, left_ms in survey.values() if left_ms > 0)
        owned[me] = keeping
        lapsed = {owner for owner, left_ms in survey.values() if left_ms <= 0} - {me}
        self._free_since_ms = {
            partition: _since(self._free_since_ms.get(partition), now_ms) for partition in free
        }
        has_new = self._look_at(members, owned, lapsed, len(survey), now_ms)
        share = self._share(me, members, owned, len(survey))
        surplus = max(0, keeping - share)
        if not surplus or has_new:
            # Those who join one shortly after the other shall find it all shed at once.
            self._surplus_since_ms = None
        if surplus:
            self._surplus_since_ms = _since(self._surplus_since_ms, now_ms)
        may_shed = not free and self._has_lasted(
            self._surplus_since_ms, BEATS_BEFORE_SHEDDING, now_ms
        )
        return Plan(
            candidates=self._rotate(free),
            wanted=min(max(0, share - keeping), len(free)),
            shed=surplus if may_shed else 0,
            next_expiry_ms=min((left_ms for left_ms in foreign if left_ms > 0), default=None),
            is_left_out=me in members and self._seen[me].is_left_out,
        )

    def _look_at(
        self,
        members: Mapping[str, int],
        owned: Mapping[str, int],
        lapsed: Container[str],
        partitions: int,
        now_ms: int,
    ) -> bool:
        """See who does not claim its part; whether anybody has joined.

        Whoever lets a lease run out, or leaves what is free for three beats though it has too
        little, is left out until it claims or joins anew: or its part would be shed for it,
        and be taken back, for ever.
        """
        before = self._seen
        self._seen = {
            one: before[one]
            if one in before and before[one].joined_ms == joined_ms
            else _Member(joined_ms, owned[one])
            for one, joined_ms in members.items()
        }
        for one, seen in self._seen.items():
            if owned[one] > seen.owned:
                seen.short_since_ms, seen.is_left_out = None, False
            seen.owned = owned[one]
        shares = {one: self._share(one, members, owned, partitions) for one in members}
        # What is shed and taken is free for a moment, too: it is the one that stays that counts.
        free_since_ms = min(self._free_since_ms.values(), default=now_ms)
        for one, seen in self._seen.items():
            if owned[one] >= shares[one]:
                seen.short_since_ms, seen.is_left_out = None, False
                continue
            seen.short_since_ms = _since(seen.short_since_ms, now_ms)
            is_me = one == self._worker_id
            beats = BEATS_BEFORE_STEPPING_BACK if is_me else BEATS_BEFORE_LEAVING_OUT
            since_ms = max(seen.short_since_ms, free_since_ms)
            if one in lapsed or self._has_lasted(since_ms, beats, now_ms):
                seen.is_left_out = True
        return any(before.get(one) is not seen for one, seen in self._seen.items())

    def _share(
        self, worker_id: str, members: Mapping[str, int], owned: Mapping[str, int], partitions: int
    ) -> int:
        """The share of a worker among those who are not left out, in what these do not keep."""
        left_out = {one for one, seen in self._seen.items() if seen.is_left_out} - {worker_id}
        sharing = [one for one in members if one not in left_out]
        return fair_share(partitions - sum(owned[one] for one in left_out), sharing, worker_id)

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
