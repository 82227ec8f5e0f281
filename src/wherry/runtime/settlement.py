"""Settlement: what follows from the answers to commits.

A result other than *done* means that the memory of a scope's instance is ahead of the truth.
Then the scope is dropped: its instance is ended, everything in hand for it is let go, and the
partition is read again from its beginning, so that the scope goes on from what Redis holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..broker.commits import (
    COMMITS,
    FINISHING,
    Answer,
    Answers,
    Bury,
    Emit,
    Fail,
    Further,
    Operation,
    Outcome,
)
from ..broker.wire import unpack
from ..hooks import Hooks
from ..model import EntryId, ScopeId, id_key
from ..tracing import trace_of
from .committer import Committer
from .delivery import Delivery
from .holding import Holding, Holdings, Track
from .pool import Pool
from .queues import Flight
from .results import Result


class Settlement:
    """Settles the results of one worker.

    Attributes:
        committer: set once it exists; the two need each other.
        refill: fetches deferred entries of a scope; set once the loader exists.
        settled: called after the results of calls, and when a partition is lost; the same.
    """

    def __init__(self, holdings: Holdings, pool: Pool, hooks: Hooks, scope_waiting: int) -> None:
        """Work on the worker's holdings."""
        self._refill_below = max(1, scope_waiting // 2)
        self.committer: Committer
        self.refill: Callable[[Track], None]
        self.settled: Callable[[], None]
        self._holdings = holdings
        self._pool = pool
        self._hooks = hooks

    def settle_done(self, flights: Sequence[Flight]) -> None:
        """Take the answers to calls of which everything took effect, as nearly all do."""
        self._holdings.changed.set()
        rested: list[Track] = []
        others: list[Further] = []
        commits = answered = 0
        for flight in flights:
            holding = flight.queue.holding
            if holding.is_lost:
                continue
            commits += 1
            finished: list[EntryId] = []
            for step, track in flight.sent:
                if isinstance(step, Answers):
                    finished += step.entry_ids
                    answered += len(step.entry_ids)
                    track.outstanding -= len(step.entry_ids)
                else:
                    others.append(step)
                    track.outstanding -= 1
                    if isinstance(step, FINISHING):
                        finished.append(step.entry_id)
                        if isinstance(step, Bury) and step.attempts:
                            self._tell(holding, step)
                if not track.outstanding or holding.deferred.count:
                    rested.append(track)
            self._finish(holding, finished)
        self._holdings.tallies.answered(commits, answered, others)
        for track in rested:
            if track.settled and not track.outstanding:
                track.wake()
            self._rest(track)
        self.settled()

    def settle(self, holding: Holding, results: Sequence[Result] | None) -> None:
        """Take the results of one call; None: the partition is no longer ours."""
        self._holdings.changed.set()
        if holding.is_lost:
            return
        tallies = self._holdings.tallies
        if results is None:
            tallies.fenced += 1
            self.lose(holding, "its lease is no longer ours")
            return
        done = [one.operation for one in results if one.outcome is Outcome.DONE]
        tallies.answered(1, 0, done)
        odd: list[Result] = []
        for result in results:
            operation = result.operation
            if result.outcome is Outcome.DONE or (
                result.outcome is Outcome.ALREADY and not isinstance(operation, COMMITS)
            ):
                if isinstance(operation, FINISHING):
                    self._finish(holding, [operation.entry_id])
                if isinstance(operation, Bury) and operation.attempts:
                    self._tell(holding, operation)
                result.track.acknowledge()
                self._rest(result.track)
            else:
                odd.append(result)
        if odd:
            self._settle_odd(holding, odd)
        self.settled()

    def _tell(self, holding: Holding, operation: Bury) -> None:
        self._hooks.warn(
            "a message that failed too often went to the dead letters",
            partition=holding.partition,
            scope=operation.scope_id,
            entry=operation.entry_id,
            attempt=operation.attempts,
            reason=operation.reason,
            **trace_of(unpack(operation.headers) if operation.headers else None),
        )

    def _settle_odd(self, holding: Holding, odd: Sequence[Result]) -> None:
        """Let go of everything first: only then may the partition be read again."""
        dropped: dict[ScopeId, Track] = {}
        guilty: dict[ScopeId, Result] = {}
        in_hand: dict[ScopeId, dict[EntryId, str]] = {}
        for result in odd:
            result.track.outstanding -= 1
            operation, scope_id = result.operation, result.track.scope_id
            dropped[scope_id] = result.track
            if result.outcome is Outcome.BAD:
                guilty[scope_id] = result
            if result.outcome is Outcome.ALREADY and isinstance(operation, COMMITS):
                self._finish(holding, [operation.entry_id])
            else:
                in_hand.setdefault(scope_id, {}).update(_entry_of(operation))
            self._hooks.detail(
                "a commit was not done",
                partition=holding.partition,
                scope=scope_id,
                outcome=result.outcome.value,
            )
        for scope_id, track in dropped.items():
            entries = in_hand.get(scope_id, {}) | self._drop(holding, track)
            for entry_id in entries:
                holding.ledger.forget(entry_id)
            if scope_id in guilty and entries:
                self._bury(holding, guilty[scope_id], entries)
        holding.deferred.clear()
        holding.ledger.rewind()
        self._holdings.changed.set()

    def _bury(self, holding: Holding, result: Result, entries: Mapping[EntryId, str]) -> None:
        """Finish the entry whose effects cannot be written.

        For what was sent outside any message that is the oldest in hand: it would only make
        another instance, which sends the same.
        """
        entry_id = next(iter(_entry_of(result.operation)), None) or min(entries, key=id_key)
        holding.ledger.hold(entry_id, 0)
        track = holding.track(result.track.scope_id)
        burial = Bury(entry_id, track.scope_id, result.reason, inbox=entries[entry_id])
        self.committer.put(track, burial)

    def _drop(self, holding: Holding, track: Track) -> dict[EntryId, str]:
        """End a scope's instance; returns what was in hand for it, each with its inbox."""
        in_hand: dict[EntryId, str] = {}
        for operation in self.committer.withdraw(holding, track.scope_id):
            in_hand |= _entry_of(operation)
        in_hand |= dict.fromkeys(track.refilling or (), "")
        track.refilling = None
        lane, track.lane = track.lane, None
        if lane is not None:
            items = lane.input_queue.drain()
            if lane.instance is not None:
                items += lane.instance.abandon()
            in_hand |= {
                one.entry.id: one.entry.extras.inbox for one in items if isinstance(one, Delivery)
            }
            self._pool.end(lane)
        if holding.tracks.get(track.scope_id) is track:
            del holding.tracks[track.scope_id]
        return in_hand

    def _finish(self, holding: Holding, entry_ids: Sequence[EntryId]) -> None:
        ledger = holding.ledger
        reads = self._holdings.ears.of(ledger.partition)
        ledger.finish(entry_ids, reads.sent, reads.answered)
        if holding.attempts:
            for entry_id in entry_ids:
                holding.forget(entry_id)

    def _rest(self, track: Track) -> None:
        """Something of a scope is acknowledged: it may have room, or be idle now."""
        lane, deferred = track.lane, track.holding.deferred
        if (
            deferred.count
            and (lane is None or len(lane.input_queue.items) < self._refill_below)
            and deferred.has(track.scope_id)
        ):
            self.refill(track)
        if track.outstanding:
            return
        if lane is None:
            track.holding.drop_if_unused(track)
        elif not lane.is_busy and lane.instance is not None and lane.instance.is_waiting():
            self._pool.rest(lane)

    def lose(self, holding: Holding, reason: str) -> None:
        """A partition is no longer ours: end its instances and forget everything of it."""
        if holding.is_lost:
            return
        self._hooks.warn("partition lost", partition=holding.partition, reason=reason)
        self._holdings.remove(holding)
        self.committer.discard(holding)
        for track in list(holding.tracks.values()):
            lane, track.lane = track.lane, None
            if lane is not None:
                lane.input_queue.drain()
                if lane.instance is not None:
                    lane.instance.abandon()
                self._pool.end(lane)
        self._holdings.changed.set()
        self.settled()


def _entry_of(operation: Operation) -> dict[EntryId, str]:
    """The entry of an operation, with its inbox; none for what was sent outside any message."""
    if isinstance(operation, Emit):
        return {EntryId(operation.cause): operation.inbox} if operation.cause else {}
    inbox = "" if isinstance(operation, Answer | Fail) else operation.inbox
    return {operation.entry_id: inbox}
