"""Hand: what the partitions of a worker have in hand together.

Each keeps its own share up to date here, so that nobody need go through all of them for every few
messages: a worker that is alone has 64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class Burials(Protocol):
    """Forgets what is finished; see `wherry.engine.ledger.Ledger`."""

    def answered(self, reads_answered: int) -> None:
        """Reads up to this number were answered."""
        ...


@dataclass(slots=True, eq=False)
class Hand:
    """Sums over ledgers and deferred ids; changed by these alone.

    Attributes:
        entries: held, in count.
        size_bytes: held, in bytes.
        deferred: ids that wait outside the window.
        changes: counts up with every change of what is to be read, and from where.
        with_tombstones: those that keep some.
    """

    entries: int = 0
    size_bytes: int = 0
    deferred: int = 0
    changes: int = 0
    with_tombstones: dict[Burials, None] = field(default_factory=lambda: {})
