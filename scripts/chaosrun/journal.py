"""The journal: what was accepted, what was seen, and what Redis forgot at a failover."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from wherry.model import Partition, partition_of

PARTITIONS = 64
LAG_MS = 500
"""What a replica may be behind before its link is cut."""


def ms_of(entry_id: str) -> int:
    """When an id was given, by Redis' clock, which is this machine's."""
    return int(entry_id.partition("-")[0])


class Sent(NamedTuple):
    """A message that was accepted, or whose fate is not known.

    Attributes:
        entry_id: "" if the sender was never told one.
        number: of the scope's messages.
        kind: type of the message.
        fails: attempts that fail by plan.
    """

    entry_id: str
    number: int
    kind: str
    fails: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """One failover: a server died for ever and its replica took over.

    Attributes:
        cut_ms: when replication was cut, by the ids' clock; what is older was replicated but for
            `LAG_MS`. The time of death if all of it was replicated.
        died_ms: when the old server was dead; ids up to this one are of its time.
        unfinished: scope and id of each entry that its successor began with.
        is_whole: the replica had everything, so that nothing may vanish.
        partitions: those that the server had; None: all of them.
    """

    cut_ms: int
    died_ms: int
    unfinished: AbstractSet[tuple[str, str]]
    is_whole: bool
    partitions: AbstractSet[Partition] | None = None

    def concerns(self, scope: str) -> bool:
        """Whether the server had the data of a scope."""
        return self.partitions is None or partition_of(scope, PARTITIONS) in self.partitions

    def may_have_lost(self, scope: str, entry_id: str) -> bool:
        """Whether something of a scope with this id can have been written and not replicated."""
        is_late = self.cut_ms - LAG_MS <= ms_of(entry_id) <= self.died_ms
        return is_late and not self.is_whole and self.concerns(scope)


@dataclass(slots=True, eq=False)
class Journal:
    """What is known outside of Redis.

    Attributes:
        sent: scope -> accepted messages in the order of their sending.
        unsure: scope -> messages without an id of their own whose sending got no answer.
        waiting: scope -> how many of its accepted messages are not known to be answered.
        failovers: in order.
        moved: set whenever a message was answered.
    """

    sent: dict[str, list[Sent]] = field(default_factory=lambda: {})
    unsure: dict[str, list[Sent]] = field(default_factory=lambda: {})
    waiting: Counter[str] = field(default_factory=lambda: Counter())
    failovers: list[Failover] = field(default_factory=lambda: [])
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    accepted: int = 0
    _open: set[tuple[str, str]] = field(default_factory=lambda: set())
    _answered_early: set[tuple[str, str]] = field(default_factory=lambda: set())

    @property
    def unfinished(self) -> int:
        """How many accepted messages are not known to be answered."""
        return len(self._open)

    def accept(self, scope: str, sent: Sent) -> None:
        """A message was appended; its answer may have been read before."""
        self.sent.setdefault(scope, []).append(sent)
        self.accepted += 1
        entry = (scope, sent.entry_id)  # ids alone repeat from partition to partition
        if entry in self._answered_early:
            self._answered_early.discard(entry)
        elif not self.is_forgotten(*entry):
            self._open.add(entry)
            self.waiting[scope] += 1

    def answer(self, scope: str, entry_id: str) -> None:
        """The end of a message's answer was read."""
        entry = (scope, entry_id)
        if entry in self._open:
            self._open.discard(entry)
            self.waiting[scope] -= 1
            self.moved.set()
        else:
            self._answered_early.add(entry)

    def fail_over(self, failover: Failover) -> None:
        """A replica took over: do not wait for what it never had."""
        self.failovers.append(failover)
        for entry in [one for one in self._open if self.is_forgotten(*one)]:
            self.answer(*entry)

    def is_forgotten(self, scope: str, entry_id: str) -> bool:
        """Whether an entry that was not answered vanished at the first failover after it."""
        for failover in self.failovers:
            if failover.concerns(scope) and ms_of(entry_id) <= failover.died_ms:
                return (scope, entry_id) not in failover.unfinished
        return False
