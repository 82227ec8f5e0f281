"""Ledger: what a worker knows of the entries of one partition during one tenure.

Reading changes nothing in Redis, so the owner alone remembers which entries it has in hand.
An id is *held* from the moment it is read until its commit is acknowledged. Where the stream is
read anew it stays a *tombstone* until every read that was sent before that acknowledgement has been
answered: a read executed before the commit and parsed after it would deliver the entry twice. A
read that goes on from where the last one ended cannot bring what is in hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..model import ORIGIN, EntryId, Partition, Token, id_key
from .hand import Hand


@dataclass(slots=True, eq=False)
class Ledger:
    """Entries in hand of one partition under one token.

    Attributes:
        partition: its number.
        token: of the tenure.
        hand: where what is held here is counted, too.
        is_draining: nothing new is read, the partition is being handed on.
        is_unreadable: nothing is read, something else was written over the input stream.
        cursor: last id read; the next read starts behind it.
        rewinds: how often reading started anew; an answer to an older read is dropped.
        is_read_anew: reading has started anew and has not come to where it was before.
        held: entries in hand, with their bytes; changed here only.
        tombstones: entries that are finished with a read still on its way; changed here only.
    """

    partition: Partition
    token: Token
    hand: Hand = field(default_factory=Hand)
    is_draining: bool = False
    is_unreadable: bool = False
    cursor: EntryId = ORIGIN
    rewinds: int = 0
    is_read_anew: bool = False
    held: dict[EntryId, int] = field(default_factory=lambda: {})
    tombstones: set[EntryId] = field(default_factory=lambda: set())
    _buried: deque[tuple[int, Collection[EntryId]]] = field(default_factory=lambda: deque())
    _read_before: EntryId = ORIGIN  # where reading was when it started anew

    @property
    def in_flight(self) -> int:
        """How many entries are held."""
        return len(self.held)

    @property
    def in_flight_bytes(self) -> int:
        """How many bytes the entries that are held have, found by adding them up."""
        return sum(self.held.values())

    @property
    def epoch(self) -> str:
        """First part of the token."""
        return self.token.partition(":")[0]

    def join(self, hand: Hand) -> None:
        """Be counted there from now on, and no more where it was."""
        is_buried = self.hand.with_tombstones.pop(self, False) is None
        entries, size_bytes = self.in_flight, self.in_flight_bytes
        for one, sign in (self.hand, -1), (hand, 1):
            one.entries += sign * entries
            one.size_bytes += sign * size_bytes
            one.changes += 1
        if is_buried:
            hand.with_tombstones[self] = None
        self.hand = hand

    def knows(self, entry_id: EntryId) -> bool:
        """Whether an entry is in hand, or finished with a read still on its way."""
        return entry_id in self.held or entry_id in self.tombstones

    def hold(self, entry_id: EntryId, size_bytes: int) -> None:
        """Take an entry in hand."""
        assert entry_id not in self.held, "an entry is in hand once"
        self.held[entry_id] = size_bytes
        self.hand.entries += 1
        self.hand.size_bytes += size_bytes

    def take(self, sizes_bytes: Mapping[EntryId, int], cursor: EntryId) -> None:
        """Take entries in hand, each with its size; everything up to ``cursor`` has been read."""
        held, hand = self.held, self.hand
        before = len(held)
        held.update(sizes_bytes)
        assert len(held) == before + len(sizes_bytes), "an entry is in hand once"
        hand.entries += len(sizes_bytes)
        hand.size_bytes += sum(sizes_bytes.values())
        self.cursor = cursor
        if self.is_read_anew:
            self.is_read_anew = id_key(cursor) < id_key(self._read_before)

    def finish(self, entry_ids: Collection[EntryId], reads_sent: int, reads_answered: int) -> None:
        """Their commits are acknowledged; keep tombstones while a read is on its way.

        Args:
            entry_ids: the entries.
            reads_sent: reads sent so far.
            reads_answered: reads answered so far, at most ``reads_sent``.
        """
        self._drop(entry_ids)
        if self.is_read_anew and reads_sent > reads_answered and entry_ids:
            self.tombstones.update(entry_ids)
            self._buried.append((reads_sent, entry_ids))
            self.hand.with_tombstones[self] = None

    def forget(self, entry_id: EntryId) -> None:
        """Let go of an entry that was not finished; a later read brings it again."""
        self._drop((entry_id,))

    def _drop(self, entry_ids: Collection[EntryId]) -> None:
        held, hand = self.held, self.hand
        hand.entries -= len(held)
        for entry_id in entry_ids:
            hand.size_bytes -= held.pop(entry_id, 0)
        hand.entries += len(held)

    def answered(self, reads_answered: int) -> None:
        """Reads up to this number were answered, or their connection is closed."""
        while self._buried and self._buried[0][0] <= reads_answered:
            self.tombstones.difference_update(self._buried.popleft()[1])
        if not self._buried:
            self.hand.with_tombstones.pop(self, None)

    def rewind(self) -> None:
        """Read from the beginning, skipping what is in hand."""
        self._read_before = max(self._read_before, self.cursor, key=id_key)
        self.is_read_anew = True
        self.cursor = ORIGIN
        self.rewinds += 1
        self.hand.changes += 1

    def drain(self) -> None:
        """Read nothing new."""
        self.is_draining = True
        self.hand.changes += 1

    def mark(self, *, is_unreadable: bool) -> None:
        """The input stream was found to be something else, or a stream again."""
        self.is_unreadable = is_unreadable
        self.hand.changes += 1
