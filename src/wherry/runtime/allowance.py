"""Allowance: for how many entries a partition may ask that is read by itself.

The sum of what is asked for fits into the window, so that what many reads bring at one time does.
"""

from __future__ import annotations

from ..config import Config
from .holding import Holding, Holdings
from .selection import BATCH, MAX_COUNT
from .window import Room, Window


class Allowance:
    """Divides the window of one worker among its partitions.

    Attributes:
        away: partitions whose node does not answer. What is in hand of them cannot be finished
            before it does, and must not take the room of the others.
    """

    __slots__ = ("_config", "_entry_bytes", "_granted", "_holdings", "_window", "away")

    def __init__(self, config: Config, holdings: Holdings) -> None:
        """Divide among a worker's holdings."""
        self.away: set[Holding] = set()
        self._window = Window(config, holdings)
        self._config = config
        self._holdings = holdings
        # Mean of what was in hand after the last read; before the first each may be the largest.
        self._entry_bytes = config.message_bytes
        self._granted: dict[Holding, int] = {}  # to reads that will be answered at once

    def ask(self, holding: Holding, *, is_backlogged: bool, is_settling: bool) -> int:
        """For how many entries a partition may ask now, 0: not yet.

        Args:
            holding: the partition.
            is_backlogged: its last read brought all that it had asked for.
            is_settling: answers to commits, which make room, are on their way. A read for each
                few entries that one of them makes room for would cost too much.
        """
        ledger, config = holding.ledger, self._config
        if (
            ledger.in_flight >= config.in_flight_per_partition
            or holding.ledger.is_unreadable
            or holding.deferred.count >= config.deferred
        ):
            return 0
        room = self.room()
        free = room.entries - sum(self._granted.values())
        if not room.is_left or free <= 0:
            return 0
        if is_settling and free < min(BATCH, config.in_flight):
            return 0
        readers = max(1, len(self._holdings))
        count = min(MAX_COUNT, config.in_flight // readers, free)
        if is_backlogged:
            # An instance that is given several messages costs less than one that is woken for
            # each. But what is beyond the cap of its scope must be fetched again.
            many = len(holding.tracks) * config.scope_waiting // 4
            count = max(count, min(MAX_COUNT, free, many))
        count = max(1, min(count, room.size_bytes // self._entry_bytes // readers))
        if is_backlogged:
            self._granted[holding] = count
        return count

    def room(self) -> Room:
        """What may be taken in hand now."""
        room = self._window.room()
        for holding in self.away:
            room.entries += holding.ledger.in_flight
            room.size_bytes += holding.ledger.in_flight_bytes
        return room

    def back(self, holding: Holding) -> None:
        """The read of a partition was answered, or is none any more."""
        self._granted.pop(holding, None)

    def note(self) -> None:
        """Something was read: look how large entries are."""
        in_hand, size_bytes = self._holdings.in_flight()
        if in_hand:
            self._entry_bytes = max(1, size_bytes // in_hand)
