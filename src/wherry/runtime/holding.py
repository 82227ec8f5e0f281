"""Holding: a partition that this worker owns, and everything it remembers of it.

All of it is thrown away when the lease is lost: nothing here survives its tenure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ..engine.deferred import Deferred
from ..engine.hand import Hand
from ..engine.ledger import Ledger
from ..engine.suspects import Takeover
from ..model import AttemptsRow, EntryId, Partition, ScopeId, Token, partition_of
from .lane import Lane
from .reads import Ears, Reads, SharedReads
from .tallies import Tallies


@dataclass(slots=True, eq=False)
class Track:
    """What is remembered of a scope from one of its instances to the next.

    Attributes:
        holding: where the scope belongs.
        scope_id: whose.
        lane: the lane that works for it now, if any.
        outstanding: operations that are not acknowledged yet.
        state: packed durable state as of the last finished message and its version, which is the
            id of the entry whose commit wrote it; None if it must be loaded.
        keys: packed scope keys of the instance.
        not_before_s: loop time before which it may not be tried again.
        refilling: deferred ids that are being fetched.
        careful: so many of its entries are taken up one by one, each when nothing is under way.
        is_parked: its head must wait; all ids of the scope stay deferred.
        young_until_s: loop time until which its keys' times to live need not be set again.
        settled: waiters for ``outstanding`` to become 0, None while there are none.
    """

    holding: Holding
    scope_id: ScopeId
    lane: Lane | None = None
    outstanding: int = 0
    state: tuple[bytes, str] | None = None
    keys: bytes = b""
    not_before_s: float = 0.0
    refilling: list[EntryId] | None = None
    is_parked: bool = False
    young_until_s: float = 0.0
    careful: int = 0
    settled: list[asyncio.Future[None]] | None = None

    @property
    def is_at_rest(self) -> bool:
        """Whether no entry of the scope is in a lane's hand or not acknowledged."""
        lane = self.lane
        if self.outstanding or lane is None:
            return not self.outstanding
        return not lane.has_deliveries

    def acknowledge(self) -> None:
        """One operation is acknowledged."""
        self.outstanding -= 1
        if not self.outstanding:
            self.wake()

    def wake(self) -> None:
        """Let those look again who wait for everything to be acknowledged."""
        for waiter in self.settled or ():
            if not waiter.done():
                waiter.set_result(None)
        self.settled = None

    async def wait_settled(self) -> None:
        """Wait until everything is acknowledged, or the holding is lost."""
        while self.outstanding and not self.holding.is_lost:
            waiter = asyncio.get_running_loop().create_future()
            self.settled = [*(self.settled or ()), waiter]
            await waiter


@dataclass(slots=True, eq=False)
class Suspect:
    """An entry that must be run alone; see `wherry.runtime.probing.Probing`.

    Attributes:
        holding: where it belongs.
        scope_id: whose.
        entry_id: the entry.
        is_called: it may leave the deferred ids for a lane.
        lane: the lane in which it waits for its turn, None while it does not.
        turn: wakes that lane.
    """

    holding: Holding
    scope_id: ScopeId
    entry_id: EntryId
    is_called: bool = False
    lane: Lane | None = None
    turn: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def row(self) -> AttemptsRow | None:
        """What is written of it, None when it is finished or its partition is given up."""
        holding = self.holding
        if holding.is_lost or holding.suspects.get(self.entry_id) is not self:
            return None
        return holding.attempts.get(self.entry_id)


@dataclass(slots=True, eq=False)
class Holding:
    """One tenure of one partition.

    Attributes:
        ledger: entries in hand.
        deferred: ids of hot scopes.
        tracks: scopes with a lane or with operations under way.
        attempts: what is written of entries that failed, or may have killed a process.
        suspects: those that must be run alone.
        held: heads of scopes that wait to be retried or dropped.
        takeover: judges entries that an owner who left uncleanly may have had in hand.
        last_id: newest entry when it was claimed.
        is_lost: the lease is somebody else's, or was given up.
        emits: number of the last emit.
        runs: number of the last run that wrote replies before its commit.
    """

    ledger: Ledger
    last_id: EntryId
    deferred: Deferred = field(default_factory=Deferred)
    tracks: dict[ScopeId, Track] = field(default_factory=lambda: {})
    attempts: dict[EntryId, AttemptsRow] = field(default_factory=lambda: {})
    suspects: dict[EntryId, Suspect] = field(default_factory=lambda: {})
    held: dict[EntryId, ScopeId] = field(default_factory=lambda: {})
    takeover: Takeover | None = None
    is_lost: bool = False
    emits: int = 0
    runs: int = 0

    @property
    def partition(self) -> Partition:
        """Its number."""
        return self.ledger.partition

    def join(self, hand: Hand) -> None:
        """Be counted there from now on, and no more where it was."""
        self.ledger.join(hand)
        self.deferred.join(hand)

    def track(self, scope_id: ScopeId) -> Track:
        """The track of a scope, made if there is none."""
        found = self.tracks.get(scope_id)
        if found is None:
            found = self.tracks[scope_id] = Track(self, scope_id)
        return found

    def forget(self, entry_id: EntryId) -> None:
        """An entry is finished, or gone: nothing is known of it any more."""
        self.attempts.pop(entry_id, None)
        self.suspects.pop(entry_id, None)
        self.held.pop(entry_id, None)

    def park(self, track: Track, entry_ids: Sequence[EntryId]) -> None:
        """Keep only the ids of a scope's entries, those in hand before those that are fetched."""
        ids = [*entry_ids, *(track.refilling or ())]
        track.refilling = None
        track.is_parked = True
        for entry_id in ids:
            self.ledger.forget(entry_id)
        self.deferred.give_back(track.scope_id, ids)

    def drop_if_unused(self, track: Track) -> None:
        """Forget a track that has neither a lane nor anything under way."""
        is_used = track.lane or track.outstanding or track.refilling is not None
        if not is_used and not self.deferred.has(track.scope_id):
            self.tracks.pop(track.scope_id, None)


class Holdings:
    """The partitions that this worker owns."""

    __slots__ = (
        "_by_partition",
        "_stuck",
        "avoided",
        "changed",
        "damaged",
        "ears",
        "hand",
        "ownerless",
        "partitions",
        "tallies",
        "unheld",
        "unserved",
    )

    def __init__(self) -> None:
        """Own nothing.

        ``changed`` is set when the set, or the room in it, has changed; ``partitions`` is the
        count of the namespace, known once Redis was asked; ``avoided`` are partitions that
        this process must not claim, because an instance of theirs does not end; ``damaged`` are
        those that nobody can claim, because something else was written over their lease;
        ``unheld`` are claimed and not in hand yet, each with its token;
        ``unserved`` are those avoided here and taken by nobody else; ``ownerless`` is how many of
        the namespace had no owner at the last beat; ``tallies`` count what was done with all that
        were ever owned; ``ears`` are the reads of all that are owned, and ``hand`` is what they
        have in hand.
        """
        self.hand = Hand()
        self.ears: Ears = SharedReads(Reads())
        self.tallies = Tallies()
        self.avoided: set[Partition] = set()
        self.damaged: set[Partition] = set()
        self.unheld: dict[Partition, Token] = {}
        self.unserved: set[Partition] = set()
        self._stuck: dict[Partition, set[asyncio.Future[None]]] = {}
        self.partitions = 1
        self.ownerless = 0
        self._by_partition: dict[Partition, Holding] = {}
        self.changed = asyncio.Event()

    def __len__(self) -> int:
        """How many are owned."""
        return len(self._by_partition)

    def get(self, partition: Partition) -> Holding | None:
        """The holding of a partition, None if it is not owned."""
        return self._by_partition.get(partition)

    def find(self, scope_id: ScopeId) -> Holding | None:
        """The holding to which a scope belongs, None if it is not owned."""
        return self._by_partition.get(partition_of(scope_id, self.partitions))

    def all(self) -> list[Holding]:
        """All of them."""
        return list(self._by_partition.values())

    def add(self, holding: Holding) -> None:
        """Own a partition."""
        before = self._by_partition.get(holding.partition)
        if before is not None:
            before.join(Hand())
        self._by_partition[holding.partition] = holding
        holding.join(self.hand)
        self.unheld.pop(holding.partition, None)
        self.tallies.claims += 1
        self.tallies.takeovers += holding.takeover is not None
        self.changed.set()

    def remove(self, holding: Holding) -> None:
        """Own it no longer."""
        holding.is_lost = True
        if self._by_partition.get(holding.partition) is holding:
            del self._by_partition[holding.partition]
            holding.join(Hand())
        for track in holding.tracks.values():
            track.wake()
        self.changed.set()

    def avoid(self, partition: Partition, lane: Lane) -> None:
        """An instance does not end: this process shall not have its partition meanwhile."""
        self.avoided.add(partition)
        self._stuck.setdefault(partition, set()).add(lane.future)
        lane.future.add_done_callback(partial(self._ended, partition))

    def _ended(self, partition: Partition, future: asyncio.Future[None]) -> None:
        stuck = self._stuck[partition]
        stuck.discard(future)
        if not stuck:
            self.avoided.discard(partition)

    def in_flight(self) -> tuple[int, int]:
        """Entries in hand and their bytes."""
        return self.hand.entries, self.hand.size_bytes
