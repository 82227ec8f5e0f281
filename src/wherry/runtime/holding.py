"""Holding: a partition that this worker owns, and everything it remembers of it.

All of it is thrown away when the lease is lost: nothing here survives its tenure.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..engine.deferred import Deferred
from ..engine.ledger import Ledger
from ..model import EntryId, Partition, ScopeId, partition_of
from .lane import Lane


@dataclass(slots=True, eq=False)
class Track:
    """What is remembered of a scope from one of its instances to the next.

    Attributes:
        holding: where the scope belongs.
        scope_id: whose.
        lane: the lane that works for it now, if any.
        outstanding: operations that are not acknowledged yet.
        packed: durable state as of the last finished message, None if it must be loaded.
        version: id of the entry whose commit wrote that state.
        keys: packed scope keys of the instance.
        not_before_s: loop time before which it may not be tried again.
        refilling: deferred ids that are being fetched.
        settled: waiters for ``outstanding`` to become 0.
    """

    holding: Holding
    scope_id: ScopeId
    lane: Lane | None = None
    outstanding: int = 0
    packed: bytes | None = None
    version: str = ""
    keys: bytes = b""
    not_before_s: float = 0.0
    refilling: list[EntryId] | None = None
    settled: list[asyncio.Future[None]] = field(default_factory=lambda: [])

    def acknowledge(self) -> None:
        """One operation is acknowledged."""
        self.outstanding -= 1
        if not self.outstanding:
            self.wake()

    def wake(self) -> None:
        """Let those look again who wait for everything to be acknowledged."""
        for waiter in self.settled:
            if not waiter.done():
                waiter.set_result(None)
        self.settled.clear()

    async def wait_settled(self) -> None:
        """Wait until everything is acknowledged, or the holding is lost."""
        while self.outstanding and not self.holding.is_lost:
            waiter = asyncio.get_running_loop().create_future()
            self.settled.append(waiter)
            await waiter


@dataclass(slots=True, eq=False)
class Holding:
    """One tenure of one partition.

    Attributes:
        ledger: entries in hand.
        deferred: ids of hot scopes.
        tracks: scopes with a lane or with operations under way.
        attempts: failed attempts of entries, as read when the partition was claimed.
        last_id: newest entry when it was claimed.
        is_lost: the lease is somebody else's, or was given up.
        emits: number of the last emit.
        runs: number of the last run that wrote replies before its commit.
    """

    ledger: Ledger
    last_id: EntryId
    deferred: Deferred = field(default_factory=Deferred)
    tracks: dict[ScopeId, Track] = field(default_factory=lambda: {})
    attempts: dict[EntryId, Any] = field(default_factory=lambda: {})
    is_lost: bool = False
    emits: int = 0
    runs: int = 0

    @property
    def partition(self) -> Partition:
        """Its number."""
        return self.ledger.partition

    def track(self, scope_id: ScopeId) -> Track:
        """The track of a scope, made if there is none."""
        found = self.tracks.get(scope_id)
        if found is None:
            found = self.tracks[scope_id] = Track(self, scope_id)
        return found

    def drop_if_unused(self, track: Track) -> None:
        """Forget a track that has neither a lane nor anything under way."""
        is_used = track.lane or track.outstanding or track.refilling is not None
        if not is_used and not self.deferred.has(track.scope_id):
            self.tracks.pop(track.scope_id, None)


class Holdings:
    """The partitions that this worker owns."""

    __slots__ = ("_by_partition", "avoided", "changed", "partitions")

    def __init__(self) -> None:
        """Own nothing.

        ``changed`` is set when the set, or the room in it, has changed; ``partitions`` is the
        count of the namespace, known once Redis was asked; ``avoided`` are partitions that
        this process must not claim, because an instance of theirs does not end.
        """
        self.avoided: set[Partition] = set()
        self.partitions = 1
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
        self._by_partition[holding.partition] = holding
        self.changed.set()

    def remove(self, holding: Holding) -> None:
        """Own it no longer."""
        holding.is_lost = True
        if self._by_partition.get(holding.partition) is holding:
            del self._by_partition[holding.partition]
        for track in holding.tracks.values():
            track.wake()
        self.changed.set()

    def in_flight(self) -> tuple[int, int]:
        """Entries in hand and their bytes."""
        count = size = 0
        for holding in self._by_partition.values():
            count += holding.ledger.in_flight
            size += holding.ledger.in_flight_bytes
        return count, size
