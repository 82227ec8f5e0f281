"""Leases: which partitions a worker should claim and how many it should let go.

"Shed and grab": everybody computes the fair share alone from the same list of members; who
holds less claims what is free, who holds more sheds. No leader, no live lease is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..model import Partition

ROUNDS_BEFORE_SHEDDING = 2
ROUNDS_BEFORE_ADOPTING = 3


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
    """Plans the rounds of one worker; remembers for how many rounds it was out of balance."""

    __slots__ = ("_free_rounds", "_surplus_rounds", "_worker_id")

    def __init__(self, worker_id: str) -> None:
        """Plan for one worker."""
        self._worker_id = worker_id
        self._surplus_rounds = 0
        self._free_rounds = 0

    def plan(
        self,
        members: Sequence[str],
        held: Mapping[Partition, bool],
        survey: Mapping[Partition, tuple[str, int]],
    ) -> Plan:
        """Decide one round.

        Args:
            members: living workers in order of joining.
            held: partitions this worker holds -> whether it is handing them on.
            survey: owner ("" if released) and milliseconds left of every lease.
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
        self._surplus_rounds = self._surplus_rounds + 1 if surplus else 0
        self._free_rounds = self._free_rounds + 1 if free and not missing else 0
        shed = surplus if self._surplus_rounds >= ROUNDS_BEFORE_SHEDDING and not free else 0
        if not missing and self._free_rounds >= ROUNDS_BEFORE_ADOPTING:
            missing = 1
        return Plan(
            candidates=self._rotate(free),
            wanted=min(missing, len(free)),
            shed=shed,
            next_expiry_ms=min(foreign, default=None),
        )

    def _rotate(self, free: Sequence[Partition]) -> Sequence[Partition]:
        """Let workers that look at the same time begin at different places."""
        if not free:
            return free
        start = sum(self._worker_id.encode()) % len(free)
        return [*free[start:], *free[:start]]
