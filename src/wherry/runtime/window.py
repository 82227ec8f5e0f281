"""Window: how many entries, and how many bytes of them, a worker takes in hand."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Config
from .holding import Holding, Holdings


@dataclass(slots=True)
class Room:
    """What may still be taken in hand.

    Attributes:
        entries: how many.
        size_bytes: how much; the last entry may pass it, or one larger than the window could
            never be taken.
    """

    entries: int
    size_bytes: int

    @property
    def is_left(self) -> bool:
        """Whether one more may be taken."""
        return self.entries > 0 and self.size_bytes > 0


class Window:
    """The bounds of the entries in hand: of all, and of each partition."""

    __slots__ = ("_changes", "_config", "_holdings", "_with_space")

    def __init__(self, config: Config, holdings: Holdings) -> None:
        """Look at a worker's holdings."""
        self._config = config
        self._holdings = holdings
        self._with_space: dict[Holding, None] = {}
        self._changes = -1  # of the hand when that was found

    def room(self) -> Room:
        """What may be taken now."""
        count, size = self._holdings.in_flight()
        return Room(self._config.in_flight - count, self._config.in_flight_bytes - size)

    def free(self) -> int:
        """How many more entries may be taken; 0 also when the bytes are used up."""
        room = self.room()
        return room.entries if room.is_left else 0

    def with_space(self) -> dict[Holding, None]:
        """The partitions that may be read, as far as each goes for itself."""
        most, deferred = self._config.in_flight_per_partition, self._config.deferred
        hand = self._holdings.hand
        # As long as all together have less than one of them may have, none is at its bound.
        is_same = hand.entries < most and hand.deferred < deferred
        if is_same and self._changes == hand.changes:
            return self._with_space
        found = {
            one: None
            for one in self._holdings.all()
            if (ledger := one.ledger).in_flight < most
            and not ledger.is_draining
            and not ledger.is_unreadable
            and one.deferred.count < deferred
        }
        if is_same:
            self._with_space, self._changes = found, hand.changes
        return found
