"""Settlement: what follows from the answers to commits.

A result other than *done* means that the memory of a scope's instance is ahead of the truth.
Then the scope is dropped: its instance is ended, everything in hand for it is let go, and the
partition is read again from its beginning, so that the scope goes on from what Redis holds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..broker.commits import Bury, Commit, Emit, Operation, Outcome
from ..hooks import Hooks
from ..model import EntryId, ScopeId
from .committer import Committer, Result
from .delivery import Delivery
from .holding import Holding, Holdings, Track
from .pool import Pool
from .reader import Reads


class Settlement:
    """Settles the results of one worker.

    Attributes:
        committer: set once it exists; the two need each other.
        refill: fetches deferred entries of a scope; set once the loader exists.
    """

    def __init__(
        self, holdings: Holdings, pool: Pool, reads: Reads, hooks: Hooks, scope_waiting: int
    ) -> None:
        """Work on the worker's holdings."""
        self._refill_below = max(1, scope_waiting // 2)
        self.committer: Committer
        self.refill: Callable[[Track], None]
        self._holdings = holdings
        self._pool = pool
        self._reads = reads
        self._hooks = hooks

    def settle(self, holding: Holding, results: Sequence[Result] | None) -> None:
        """Take the results of one call; None: the partition is no longer ours."""
        if holding.is_lost:
            return
        if results is None:
            self.lose(holding, "its lease is no longer ours")
            return
        odd: list[Result] = []
        for result in results:
            operation = result.operation
            if result.outcome is Outcome.DONE or (
                result.outcome is Outcome.ALREADY and not isinstance(operation, Commit)
            ):
                if isinstance(operation, Commit | Bury):
                    self._finish(holding, operation.entry_id)
                result.track.acknowledge()
                self._rest(result.track)
            else:
                odd.append(result)
        self._holdings.changed.set()
        if odd:
            self._settle_odd(holding, odd)

    def _settle_odd(self, holding: Holding, odd: Sequence[Result]) -> None:
        """Let go of everything first: only then may the partition be read again."""
        dropped: dict[ScopeId, Track] = {}
        bad: dict[EntryId, Bury] = {}
        for result in odd:
            if result.outcome is Outcome.BAD:
                burial = _burial(result)
                if burial is not None:
                    bad.setdefault(burial.entry_id, burial)
        for result in odd:
            result.track.outstanding -= 1
            operation, track = result.operation, result.track
            dropped[track.scope_id] = track
            entry_id = _entry_of(operation)
            if result.outcome is Outcome.ALREADY and entry_id:
                self._finish(holding, entry_id)
            elif isinstance(operation, Commit | Bury) and operation.entry_id not in bad:
                holding.ledger.forget(operation.entry_id)
            self._hooks.detail(
                "a commit was not done",
                partition=holding.partition,
                scope=track.scope_id,
                entry=entry_id,
                outcome=result.outcome.value,
            )
        for track in dropped.values():
            self._drop(holding, track, keep=bad)
        for burial in bad.values():
            self.committer.put(holding.track(burial.scope_id), burial)
        holding.deferred.clear()
        holding.ledger.rewind()
        self._holdings.changed.set()

    def _drop(self, holding: Holding, track: Track, keep: Container[EntryId]) -> None:
        """End a scope's instance and let go of everything in hand for it."""
        in_hand: list[EntryId] = []
        for operation in self.committer.withdraw(holding, track.scope_id):
            entry_id = _entry_of(operation)
            if entry_id and not isinstance(operation, Emit):
                in_hand.append(entry_id)
        in_hand += track.refilling or []
        track.refilling = None
        lane, track.lane = track.lane, None
        if lane is not None:
            for item in lane.input_queue.drain():
                if isinstance(item, Delivery):
                    in_hand.append(item.entry.id)
            if lane.instance is not None:
                in_hand += [one.entry.id for one in lane.instance.unfinished]
                lane.instance.unfinished = []
            self._pool.end(lane)
        for entry_id in in_hand:
            if entry_id not in keep:
                holding.ledger.forget(entry_id)
        if holding.tracks.get(track.scope_id) is track:
            del holding.tracks[track.scope_id]

    def _finish(self, holding: Holding, entry_id: EntryId) -> None:
        holding.ledger.finish(entry_id, self._reads.sent, self._reads.answered)
        holding.attempts.pop(entry_id, None)

    def _rest(self, track: Track) -> None:
        """Something of a scope is acknowledged: it may have room, or be idle now."""
        lane, deferred = track.lane, track.holding.deferred
        is_short = lane is None or len(lane.input_queue) < self._refill_below
        if deferred.count and is_short and deferred.has(track.scope_id):
            self.refill(track)
        if track.outstanding:
            return
        if lane is None:
            track.holding.drop_if_unused(track)
        elif lane.instance is not None and lane.instance.is_waiting and not lane.is_busy:
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
                    lane.instance.unfinished = []
                self._pool.end(lane)
        self._holdings.changed.set()


def _burial(result: Result) -> Bury | None:
    """What finishes the entry whose effects cannot be written.

    For what was sent outside any message that is the next entry of the scope: it would only
    make another instance, which sends the same.
    """
    operation, track = result.operation, result.track
    entry_id = _entry_of(operation)
    inbox = operation.inbox if isinstance(operation, Commit | Emit) else ""
    if entry_id is None and track.lane is not None:
        instance = track.lane.instance
        open_ones = instance.unfinished if instance is not None else []
        head = open_ones[0] if open_ones else track.lane.input_queue.peek()
        if isinstance(head, Delivery):
            entry_id, inbox = head.entry.id, head.entry.inbox
    return Bury(entry_id, track.scope_id, result.reason, inbox=inbox) if entry_id else None


def _entry_of(operation: Operation) -> EntryId | None:
    if isinstance(operation, Emit):
        return EntryId(operation.cause) if operation.cause else None
    return operation.entry_id
