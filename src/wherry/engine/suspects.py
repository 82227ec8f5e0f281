"""Suspects: which messages may have killed a process, and how they share it with the others.

Redis does not say which message a dead process was at. The first unfinished entry of each scope
may be it: each unclean takeover counts a crash against those. One crash proves nothing, nor do a
few while a fleet is killed again and again, and the entry runs as any other: to run alone stops
all others of the process. From `SUSPECT_FROM` on it is *probed*: run alone in the process, under
a mark that is in Redis before it starts. A death under the mark is its own, and only such deaths
are failed attempts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..model import AttemptsRow, EntryId, ScopeId, Token, id_key

SUSPECT_FROM = 5
MOST_CAREFUL = 64
"""So many entries of a scope are begun one by one after a second crash, each when the commit of
the one before is acknowledged: what was finished but not yet committed stands before the guilty
one in the stream, and would be counted in its place."""
MOST_DOUBLINGS = 5
FIRST_PATIENCE_S = 1.0
LEAST_SHARE_S = 0.25
DEATH = "ProcessDied: the worker process died while it handled this message and nothing else"


def is_suspect(row: AttemptsRow) -> bool:
    """Whether an entry must be run alone."""
    return row.crashes >= SUSPECT_FROM


def probe_limit_s(probe_s: float, crashes: int) -> float:
    """How long a suspect may have the process to itself.

    One that is still running then goes on beside the others: it may be slow, or hang, and has
    killed nobody. If a process dies all the same, the next probe lasts twice as long.
    """
    return probe_s * 2.0 ** min(max(0, crashes - SUSPECT_FROM), MOST_DOUBLINGS)


@dataclass(slots=True, eq=False)
class Takeover:
    """What an unclean takeover says about the entries that were there.

    Attributes:
        previous: token of the tenure that ended so.
        last_id: newest entry at the takeover; later ones were in nobody's hand.
        most: scopes that a worker may have in hand at a time: those behind them in the stream
            had not been read.
        is_again: the partition was taken over so before, a short while ago.
        was_probing: the last owner was at a probe, and nothing else ran in its process.
    """

    previous: Token
    last_id: EntryId
    most: int
    is_again: bool = False
    was_probing: bool = False
    _met: set[ScopeId] = field(default_factory=lambda: set())

    def is_over(self, entry_id: EntryId) -> bool:
        """Whether an entry, met in the order of the stream, is behind all that were there."""
        return len(self._met) >= self.most or id_key(entry_id) > id_key(self.last_id)

    def judge(
        self, entry_id: EntryId, scope_id: ScopeId, row: AttemptsRow | None
    ) -> AttemptsRow | None:
        """The new row of an entry, None if nothing is to be counted against it.

        To be asked for the entries in the order of the stream, as they are met.
        """
        if scope_id in self._met or self.is_over(entry_id):
            return None
        self._met.add(scope_id)
        row = row or AttemptsRow()
        if row.is_held:
            return None
        if row.probe and row.probe == self.previous:
            return row._replace(attempts=row.attempts + 1, error=DEATH, probe="")
        if self.was_probing:
            return None
        return row._replace(crashes=row.crashes + 1, probe="")


@dataclass(slots=True, eq=False)
class Sharing:
    """How suspects and normal work take turns in a process.

    Normal work goes first, and between two stops it gets at least as long as the last one took.
    A stop begins with a wait for quiet. The patience for that doubles from stop to stop that
    saw none, up to ``most_patience_s``; after that one, what still runs is cut off, as it is at
    the deadline of a drain.

    Attributes:
        most_patience_s: the longest wait for quiet.
        share_s: how long normal work runs before the next stop.
        patience_s: how long the next stop waits for quiet.
    """

    most_patience_s: float
    share_s: float = LEAST_SHARE_S
    patience_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin with the shortest patience."""
        self.stopped(0.0, was_quiet=True)

    @property
    def is_at_end(self) -> bool:
        """Whether the patience is at its end: then what still runs is cut off."""
        return self.patience_s >= self.most_patience_s

    def stopped(self, lasted_s: float, *, was_quiet: bool) -> None:
        """A stop is over."""
        self.share_s = max(LEAST_SHARE_S, lasted_s)
        longer_s = FIRST_PATIENCE_S if was_quiet else 2 * self.patience_s
        self.patience_s = min(longer_s, self.most_patience_s)
