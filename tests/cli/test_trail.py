"""Rates of two looks: by the worker's clock, and what came in by what the backlog did."""

from __future__ import annotations

import pytest

from wherry.cli.show import Status
from wherry.cli.trail import KEPT, Latency, Pace, Trail, is_measuring, latency, pace_of
from wherry.model import MemberInfo, Partition, PartitionInfo


def member(name: str = "w", **fields: int | str) -> MemberInfo:
    return MemberInfo(worker_id=name, fields={key: str(one) for key, one in fields.items()})


def status(backlog: int, *members: MemberInfo, generation: str = "g") -> Status:
    partition = PartitionInfo(
        partition=Partition(3), owner="w", lease_ms=1, backlog=backlog, dead=0, oldest_ms=0
    )
    return Status(
        namespace="shop",
        store="redis://h",
        generation=generation,
        members=members,
        partitions=[partition],
    )


def beat(up_ms: int, done: int, **more: int) -> MemberInfo:
    return member("w", up_ms=up_ms, done=done, **more)


def test_first_look_has_the_rates_of_the_last_two_beats():
    told = member(up_ms=9000, done=900, last_ms=2000, last_done=50, last_replies=100, last_dead=2)
    assert pace_of(told, None, None) == Pace(done=25.0, replies=50.0, failed=1.0, gone=26.0)
    assert pace_of(member(), None, None) == Pace()


def test_rates_are_by_the_clock_of_the_worker():
    """Looks and beats are out of step: by the watcher's clock a steady rate would waver."""
    before = beat(10_000, 100, retried=1, expired=0)
    now = beat(14_000, 180, retried=3, expired=8)
    assert pace_of(now, before, Pace()) == Pace(done=20.0, failed=0.5, gone=22.0)


def test_rate_holds_until_the_worker_has_said_something_new():
    last = Pace(done=7.0)
    assert pace_of(beat(10, 5), beat(10, 5), last) is last


def test_what_came_in_is_what_went_and_what_the_backlog_grew_by():
    trail = Trail()
    trail.take(status(10, beat(1000, 0)), 100.0)
    trail.take(status(40, beat(3000, 100)), 102.0)
    trail.take(status(0, beat(5000, 140)), 104.0)
    trail.take(status(0, beat(5000, 140)), 106.0)
    assert [one.entered for one in trail.marks] == [None, 50.0 + 15.0, 0.0, 20.0]
    assert [one.pace.done for one in trail.marks] == [0.0, 50.0, 20.0, 20.0]
    assert [one.waiting for one in trail.marks] == [{3: 10}, {3: 40}, {}, {}]


def test_worker_that_has_left_counts_no_more():
    trail = Trail()
    trail.take(status(0, beat(1000, 0), member("x", last_ms=1000, last_done=9)), 1.0)
    assert trail.marks[-1].pace.done == 9.0
    trail.take(status(0, beat(2000, 5)), 2.0)
    assert (trail.marks[-1].pace.done, set(trail.paces)) == (5.0, {"w"})


def test_namespace_that_was_made_anew_begins_anew():
    trail = Trail()
    trail.take(status(90_000), 1.0)
    trail.take(status(0, generation="h"), 2.0)
    assert [one.entered for one in trail.marks] == [None]


def test_marks_are_bounded():
    trail = Trail()
    for second in range(KEPT + 5):
        trail.take(status(0), float(second))
    assert len(trail.marks) == KEPT


def test_half_of_the_messages_by_how_much_each_worker_did_and_the_worst_of_the_last_hundredth():
    fleet = [
        member("a", last_done=10, queueing_p50_us=9000, queueing_p99_us=9900),
        member("b", last_done=90, queueing_p50_us=100, queueing_p99_us=400),
        member("c", last_done=0, queueing_p50_us="", queueing_p99_us=""),
        member("d", last_done=1000),
    ]
    assert latency(fleet, "queueing") == Latency(p50=100, p99=9900)
    assert latency(fleet[:1], "queueing") == Latency(p50=9000, p99=9900)
    assert latency(fleet[2:], "queueing") == Latency(p50=None, p99=None)


@pytest.mark.parametrize(("fields", "expected"), [({"handling_p50_us": ""}, True), ({}, False)])
def test_who_measures_says_so_before_the_first_message(fields: dict[str, str], expected: bool):
    assert is_measuring(MemberInfo(worker_id="w", fields=fields)) is expected
