"""Reads: which reads are on their way, of the whole worker or of each partition.

One server is read over one connection, and then all partitions share one count. In a cluster each
partition is read over its own: a node that is silent concerns only those that it serves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from ..model import Partition

MARGIN_S = 2.0
"""An answer may be so late."""


@dataclass(slots=True, eq=False)
class Reads:
    """Which reads are on their way.

    A connection of which only one half is alive answers nothing, is given up after a time, and so
    is the next. Whoever reads over such ones must not keep partitions, so that time is counted
    from the first read without an answer.

    Attributes:
        sent: reads sent so far.
        answered: reads answered so far, or whose connection is closed.
        waiting_since_s: monotonic time since which an answer is owed, 0.0 if none is: nothing is
            read on purpose, or a connection was closed before the answer was due.
    """

    sent: int = 0
    answered: int = 0
    waiting_since_s: float = 0.0

    def begin(self) -> None:
        """A read is sent."""
        self.sent += 1
        self.waiting_since_s = self.waiting_since_s or time.monotonic()

    def end(self, *, is_answered: bool, block_s: float) -> None:
        """It is answered, or its connection is closed; it blocked for ``block_s`` at most."""
        self.answered = self.sent
        if is_answered or not self.is_overdue(time.monotonic(), block_s):
            self.waiting_since_s = 0.0

    def is_overdue(self, now_s: float, limit_s: float) -> bool:
        """Whether at an instant an answer was owed for longer than it may take."""
        return self.waiting_since_s > 0 and now_s - self.waiting_since_s > limit_s


class Ears(Protocol):
    """The reads of a worker; what asks whether they are overdue may do so from any thread."""

    def of(self, partition: Partition) -> Reads:
        """The reads that may bring entries of a partition."""
        ...

    def is_overdue(self, now_s: float, limit_s: float) -> bool:
        """Whether nothing that was claimed now would be read."""
        ...

    def is_deaf(self, partition: Partition, now_s: float, limit_s: float) -> bool:
        """Whether a partition is not read though it should be; see `Reads.is_overdue`."""
        ...


class SharedReads:
    """Implements `Ears` where one read serves all partitions.

    Attributes:
        reads: of all of them.
    """

    __slots__ = ("reads",)

    def __init__(self, reads: Reads) -> None:
        """Share this count."""
        self.reads = reads

    def of(self, partition: Partition) -> Reads:
        """See `Ears`."""
        return self.reads

    def is_overdue(self, now_s: float, limit_s: float) -> bool:
        """See `Ears`."""
        return self.reads.is_overdue(now_s, limit_s)

    def is_deaf(self, partition: Partition, now_s: float, limit_s: float) -> bool:
        """See `Ears`."""
        return self.reads.is_overdue(now_s, limit_s)


class SeparateReads:
    """Implements `Ears` where each partition is read by itself."""

    __slots__ = ("_by_partition",)

    def __init__(self) -> None:
        """Read nothing yet."""
        self._by_partition: dict[Partition, Reads] = {}

    def of(self, partition: Partition) -> Reads:
        """See `Ears`; none were sent of what is not read."""
        return self._by_partition.get(partition) or Reads()

    def begin(self, partition: Partition) -> Reads:
        """A partition is read from now on."""
        reads = self._by_partition[partition] = Reads()
        return reads

    def end(self, partition: Partition, reads: Reads) -> None:
        """A partition is read no longer."""
        if self._by_partition.get(partition) is reads:
            del self._by_partition[partition]

    def is_overdue(self, now_s: float, limit_s: float) -> bool:
        """See `Ears`: only if that is so of all that are read."""
        found = list(self._by_partition.values())
        return bool(found) and all(one.is_overdue(now_s, limit_s) for one in found)

    def is_deaf(self, partition: Partition, now_s: float, limit_s: float) -> bool:
        """See `Ears`."""
        reads = self._by_partition.get(partition)
        return reads is not None and reads.is_overdue(now_s, limit_s)
