"""Window: how many entries, and how many bytes of them, a worker takes in hand."""

from __future__ import annotations

from ..config import Config
from .holding import Holding, Holdings


class Window:
    """The bounds of the entries in hand: of all, and of each partition."""

    __slots__ = ("_config", "_holdings")

    def __init__(self, config: Config, holdings: Holdings) -> None:
        """Look at a worker's holdings."""
        self._config = config
        self._holdings = holdings

    def free(self) -> int:
        """How many more entries may be taken; 0 also when the bytes are used up."""
        count, size = self._holdings.in_flight()
        return max(0, self._config.in_flight - count) if size < self._config.in_flight_bytes else 0

    def has_space(self, holding: Holding) -> bool:
        """Whether a partition may be read, as far as it goes for itself."""
        return (
            not holding.ledger.is_draining
            and holding.ledger.in_flight < self._config.in_flight_per_partition
            and holding.deferred.count < self._config.deferred
        )

    def limits(self, holding: Holding) -> tuple[int, int]:
        """Up to which count, and to which bytes, a partition's entries in hand may grow now.

        The last entry may pass the bytes, or one larger than all of them could never be taken.
        """
        count, size = self._holdings.in_flight()
        config, ledger = self._config, holding.ledger
        return (
            min(config.in_flight_per_partition, ledger.in_flight + config.in_flight - count),
            ledger.in_flight_bytes + config.in_flight_bytes - size,
        )
