"""Snapshot: all numbers of one worker at one moment, fit to be sent to whoever shows them.

`METRICS` is the list of what there is; ``docs/monitoring.md`` has the same, and a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from ..engine.histogram import Histogram
from ..model import PartitionInfo
from ..runtime.vitals import Vitals


class Metric(NamedTuple):
    """One metric.

    Attributes:
        kind: counter, histogram or gauge.
        about: what it is, one sentence.
    """

    kind: str
    about: str


OUTCOMES = ("done", "retried", "dead", "expired", "held")
METRICS: dict[str, Metric] = {
    "messages_total": Metric("counter", "Messages by what became of an attempt at them."),
    "replies_total": Metric("counter", "Replies written."),
    "commits_total": Metric("counter", "Commit calls that were answered."),
    "fenced_commits_total": Metric("counter", "Commit calls refused: the lease was lost."),
    "claims_total": Metric("counter", "Partitions claimed."),
    "takeovers_total": Metric("counter", "Those of them whose last owner had died or stalled."),
    "handoffs_total": Metric("counter", "Partitions released in good order."),
    "evictions_total": Metric("counter", "Idle instances ended to make room."),
    "reconnects_total": Metric("counter", "Connections for reads and commits made anew."),
    "loop_stalls_total": Metric("counter", "Times the loop stood still for over half a lease."),
    "handling_seconds": Metric("histogram", "From receive() to the finish of a message."),
    "queueing_seconds": Metric("histogram", "From the append of a message to its receive()."),
    "commit_seconds": Metric("histogram", "From the sending of a commit call to its answer."),
    "commit_operations": Metric("histogram", "Operations that a commit call carries."),
    "backlog_entries": Metric("gauge", "Unfinished entries in the partitions owned."),
    "oldest_entry_age_seconds": Metric("gauge", "Age of the oldest of them."),
    "dead_letters": Metric("gauge", "Dead letters in the partitions owned."),
    "held_scopes": Metric("gauge", "Scopes that wait for people, in the partitions owned."),
    "partitions_owned": Metric("gauge", "Partitions owned."),
    "partitions_total": Metric("gauge", "Partitions of the namespace."),
    "partitions_without_owner": Metric("gauge", "Partitions of the namespace without an owner."),
    "instances": Metric("gauge", "Instances of the application."),
    "instances_busy": Metric("gauge", "Those of them that handle a message."),
    "entries_in_flight": Metric("gauge", "Entries read and not finished."),
    "in_flight_bytes": Metric("gauge", "Their bytes."),
    "loop_lag_seconds": Metric("gauge", "By how much the loop was late, at most, in 10 s."),
    "ready": Metric("gauge", "1 while the worker can claim and read."),
    "live": Metric("gauge", "1 while its loop turns."),
}
"""Name without the prefix ``wherry_`` -> what it is. No label grows with scopes or partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Numbers of one worker.

    Attributes:
        worker: its id.
        namespace: that it serves.
        pid: of its process.
        outcomes: messages by outcome.
        numbers: counters and gauges but for these, by name.
        histograms: by name: bounds, cumulative counts, sum.
    """

    worker: str
    namespace: str
    pid: int
    outcomes: Mapping[str, int]
    numbers: Mapping[str, float]
    histograms: Mapping[str, tuple[list[float], list[int], float]]

    def as_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """From that text; raises ValueError or TypeError where it is none."""
        return cls(**json.loads(text))


def take_snapshot(
    vitals: Vitals, depth: Sequence[PartitionInfo] | None, *, is_ready: bool
) -> Snapshot:
    """Look at a worker, from any thread.

    Args:
        vitals: of the worker.
        depth: what lies in the partitions that it owns; None while Redis does not tell, and then
            these numbers are missing.
        is_ready: whether it can claim and read.
    """
    numbers: dict[str, float] = {
        "reconnects_total": vitals.reconnects(),
        "loop_stalls_total": vitals.stalls,
        "loop_lag_seconds": vitals.loop_lag_s(),
        "ready": int(is_ready),
        "live": int(not vitals.why_not_live()),
    }
    if depth is not None:
        numbers["backlog_entries"] = sum(one.backlog for one in depth)
        oldest_ms = max((one.oldest_ms for one in depth), default=0)
        numbers["oldest_entry_age_seconds"] = oldest_ms / 1000
        numbers["dead_letters"] = sum(one.dead for one in depth)
    outcomes: dict[str, int] = {}
    histograms: dict[str, tuple[list[float], list[int], float]] = {}
    if vitals.organs is not None and vitals.meter is not None:
        tallies = vitals.organs.holdings.tallies
        outcomes = {name: getattr(tallies, name) for name in OUTCOMES}
        numbers |= _worker_numbers(vitals)
        meter = vitals.meter
        histograms = {
            "handling_seconds": _pack(meter.handling),
            "queueing_seconds": _pack(meter.queueing),
            "commit_seconds": _pack(meter.commits),
            "commit_operations": _pack(meter.operations),
        }
    return Snapshot(
        worker=vitals.worker_id,
        namespace=vitals.namespace,
        pid=vitals.pid,
        outcomes=outcomes,
        numbers=numbers,
        histograms=histograms,
    )


def _worker_numbers(vitals: Vitals) -> dict[str, float]:
    organs = vitals.organs
    assert organs is not None
    holdings = organs.holdings
    tallies = holdings.tallies
    held = holdings.all()
    in_flight, in_flight_bytes = holdings.in_flight()
    return {
        "replies_total": tallies.replies,
        "commits_total": tallies.commits,
        "fenced_commits_total": tallies.fenced,
        "claims_total": tallies.claims,
        "takeovers_total": tallies.takeovers,
        "handoffs_total": tallies.handoffs,
        "evictions_total": tallies.evictions,
        "held_scopes": sum(len(one.held) for one in held),
        "partitions_owned": len(held),
        "partitions_total": holdings.partitions,
        "partitions_without_owner": holdings.ownerless,
        "instances": len(organs.pool.lanes),
        "instances_busy": organs.tracked.busy,
        "entries_in_flight": in_flight,
        "in_flight_bytes": in_flight_bytes,
    }


def _pack(histogram: Histogram) -> tuple[list[float], list[int], float]:
    return (list(histogram.bounds), histogram.cumulative(), histogram.total)
