"""What follows from the answers to commits."""

from __future__ import annotations

from typing import Any, cast

from tests.runtime.test_reader import holding
from wherry.broker.commits import Answers
from wherry.hooks import Hooks
from wherry.model import EntryId, ScopeId
from wherry.runtime.holding import Holdings
from wherry.runtime.queues import Flight, Queue
from wherry.runtime.settlement import Settlement


def test_calls_of_partitions_that_were_lost_meanwhile_settle_nothing():
    """The others that were answered with them are settled all the same."""
    holdings = Holdings()
    nobody = cast("Any", None)  # no lane is there to rest
    settlement = Settlement(holdings, nobody, Hooks(), scope_waiting=8)
    settlement.settled = lambda: None
    flights: list[Flight] = []
    for number in range(2):
        one = holding(number)
        holdings.add(one)
        track = one.track(ScopeId("s"))
        one.ledger.hold(EntryId("1-0"), 5)
        track.outstanding = 1
        run = Answers(track.scope_id)
        run.add(EntryId("1-0"), b"reply", None, 5)
        queue = Queue(one)
        queue.waiting.append((run, track))
        flight = queue.load(0.0)
        assert flight is not None
        flights.append(flight)
    lost, kept = [one.queue.holding for one in flights]
    holdings.remove(lost)
    settlement.settle_done(flights)
    assert (holdings.tallies.commits, holdings.tallies.done) == (1, 1)
    assert lost.tracks[ScopeId("s")].outstanding == 1
    assert not kept.tracks, "nobody has anything to do with it"
    assert holdings.in_flight() == (0, 0)
