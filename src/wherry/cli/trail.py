"""Trail: what looks at a fleet, one after another, tell that a single one does not.

Counters of workers become rates, by the worker's own clock; what came in is what was finished and
by what the backlog grew meanwhile. Nothing here looks or waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..model import MemberInfo, Partition
from .show import Status, number
from .workers import measured

KEPT = 400
"""So many looks are kept: one for each letter of the widest terminal."""
_LAST = ("done", "replies", "retried", "dead", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a worker, or all of them, do in a second.

    Attributes:
        done: messages that were handled.
        replies: replies of applications.
        failed: attempts that failed, the last ones of dead letters included.
        gone: messages that left the backlog, whatever became of them.
    """

    done: float = 0.0
    replies: float = 0.0
    failed: float = 0.0
    gone: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What one look told.

    Attributes:
        at_s: when it was, monotonic.
        backlog: unfinished messages.
        pace: of all workers.
        entered: messages that came in a second; None before the second look.
        waiting: backlog of those partitions that have one.
    """

    at_s: float
    backlog: int
    pace: Pace
    entered: float | None
    waiting: Mapping[Partition, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Microseconds that half of the messages, and all but one in a hundred, took at most.

    Attributes:
        p50: of all workers, by how much each did.
        p99: of the worker that is worst off; None, as the other, if no message came.
    """

    p50: int | None
    p99: int | None


class Trail:
    """The looks at one namespace.

    Attributes:
        marks: of the last looks, oldest first.
        paces: by worker.
    """

    __slots__ = ("_generation", "_members", "marks", "paces")

    def __init__(self) -> None:
        """No look yet."""
        self.marks: deque[Mark] = deque(maxlen=KEPT)
        self.paces: dict[str, Pace] = {}
        self._members: dict[str, MemberInfo] = {}
        self._generation = ""

    def take(self, status: Status, at_s: float) -> None:
        """Take in a look.

        Args:
            status: what it saw.
            at_s: when, monotonic.
        """
        if status.generation != self._generation:  # another namespace by the same name
            self.marks.clear()
            self._generation = status.generation
        self.paces = {
            one.worker_id: pace_of(
                one, self._members.get(one.worker_id), self.paces.get(one.worker_id)
            )
            for one in status.members
        }
        self._members = {one.worker_id: one for one in status.members}
        together = Pace(
            **{
                name: sum(getattr(one, name) for one in self.paces.values())
                for name in ("done", "replies", "failed", "gone")
            }
        )
        last = self.marks[-1] if self.marks else None
        self.marks.append(
            Mark(
                at_s=at_s,
                backlog=status.backlog,
                pace=together,
                entered=None if last is None else entered(last, status.backlog, together, at_s),
                waiting={one.partition: one.backlog for one in status.partitions if one.backlog},
            )
        )


def pace_of(member: MemberInfo, before: MemberInfo | None, last: Pace | None) -> Pace:
    """What a worker does in a second.

    Args:
        member: what it says now.
        before: what it said at the last look, if it was there.
        last: its pace then, which holds until it has said something new.
    """
    if before is None or last is None:
        counts = {name: number(member, f"last_{name}") for name in _LAST}
        return _pace(counts, number(member, "last_ms"))
    passed_ms = number(member, "up_ms") - number(before, "up_ms")
    if passed_ms == 0:
        return last
    return _pace({name: number(member, name) - number(before, name) for name in _LAST}, passed_ms)


def entered(last: Mark, backlog: int, pace: Pace, at_s: float) -> float:
    """Messages that came in a second since the last look."""
    passed_s = at_s - last.at_s
    grown = (backlog - last.backlog) / passed_s if passed_s > 0 else 0.0
    return max(0.0, pace.gone + grown)


def is_measuring(member: MemberInfo) -> bool:
    """Whether a worker measures how long messages take."""
    return "handling_p50_us" in member.fields


def latency(members: Sequence[MemberInfo], what: str) -> Latency:
    """How long messages of all workers took between their last two beats.

    Args:
        members: the workers.
        what: ``queueing`` or ``handling``.
    """
    halves = [
        (half, max(1, number(one, "last_done")))
        for one in members
        if (half := measured(one, f"{what}_p50_us")) is not None
    ]
    most = [
        one for one in (measured(member, f"{what}_p99_us") for member in members) if one is not None
    ]
    return Latency(p50=_middle(halves), p99=max(most, default=None))


def _middle(weighted: Sequence[tuple[int, int]]) -> int | None:
    left = sum(weight for _, weight in weighted) / 2
    for value, weight in sorted(weighted):
        left -= weight
        if left <= 0:
            return value
    return None


def _pace(counts: Mapping[str, int], length_ms: int) -> Pace:
    if length_ms <= 0:
        return Pace()
    rates = {name: max(0, count) * 1000 / length_ms for name, count in counts.items()}
    return Pace(
        done=rates["done"],
        replies=rates["replies"],
        failed=rates["retried"] + rates["dead"],
        gone=rates["done"] + rates["dead"] + rates["expired"],
    )
