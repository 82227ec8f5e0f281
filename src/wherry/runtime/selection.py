"""Selection: which partitions the next read asks for, and for how many entries of each.

A few partitions with many entries each cost less, to read and to commit, than many with few. So of
those that are known to have a backlog each read takes as many as make a batch, in turn; those that
were quiet are always among what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ..config import Config
from ..engine.bursts import Bursts
from ..engine.gathering import Gathering, Usage
from ..engine.portions import Portions
from .holding import Holding, Holdings
from .window import Room, Window

MAX_COUNT = 256
BATCH = 512
"""Entries that one read is to bring at most, as far as can be foreseen.

A few such reads fill the window: while the answers to one are committed the next is worked on and
the one after that is read.
"""


SAME = 16
"""So many reads in a row ask in the same order, which is quicker to put together again."""


@dataclass(slots=True, eq=False)
class Choice:
    """What to read next.

    Attributes:
        rewinds: number of rewinds of each partition to be read, in the order of routing.
        count: most entries of each.
        is_partial: partitions with a backlog are left out; then it must not wait.
        changes: of the worker's hand when it was made.
    """

    rewinds: dict[Holding, int]
    count: int
    is_partial: bool
    changes: int


class Selection:
    """Chooses for one worker.

    Attributes:
        window: what may be taken in hand.
        brought: entries that the last read brought, until the reader has gone by it.
        bursts: whether it pays to look once more before they are handled.
        gathering: whether it pays to wait before the next read.
        portions: what of it is handled while the effects of the rest are on their way.
    """

    __slots__ = (
        "_backlogged", "_config", "_entry_bytes", "_first", "_holdings", "_readable", "_rewinds",
        "brought", "bursts", "gathering", "portions", "window",
    )  # fmt: skip

    def __init__(self, config: Config, holdings: Holdings, usage: Callable[[], Usage]) -> None:
        """Choose among a worker's holdings; ``usage`` is that of the thread that reads."""
        self.window = Window(config, holdings)
        self.brought = 0
        self.bursts = Bursts()
        self.gathering = Gathering(config.gather_s, usage)
        self.portions = Portions()
        self._config = config
        self._holdings = holdings
        # Mean of what was in hand after the last read; before the first each may be the largest.
        self._entry_bytes = config.message_bytes
        self._backlogged: dict[Holding, None] = {}  # least recently read first
        # Of the last choice, which is mostly that of the next.
        self._readable: dict[Holding, None] = {}
        self._first = -1
        self._rewinds: dict[Holding, int] = {}

    def choose(self, turn: int, *, is_settling: bool) -> Choice | None:
        """What to read, None: nothing now.

        The router takes what the window has room for, in this order: each partition comes to be
        the first of its kind, or the last would starve.

        Args:
            turn: counts up from read to read.
            is_settling: answers to commits, which make room, are on their way. A read for each
                few entries that one of them makes room for would cost too much.
        """
        room, in_flight = self.window.room(), self._config.in_flight
        free = room.entries if room.is_left else 0
        if not free or (is_settling and free < min(BATCH, in_flight)):
            return None
        readable = self.window.with_space()
        if not readable:
            return None
        # Of what nobody knows there may be any number: a window that one read has filled would be
        # handled to its end before the first of it is committed.
        count = max(1, min(MAX_COUNT, min(BATCH, in_flight) // len(readable), free))
        backlogged: list[Holding] = []
        quiet = [*readable]
        if self._backlogged:
            self._backlogged = {one: None for one in self._backlogged if not one.is_lost}
            backlogged = [one for one in self._backlogged if one in readable]
            quiet = [one for one in readable if one not in self._backlogged]
        if backlogged:
            # An instance that is given several messages costs less than one that is woken for
            # each. But what is beyond the cap of its scope must be fetched again.
            scopes = min(len(one.tracks) for one in backlogged)
            count = max(count, min(MAX_COUNT, free, scopes * self._config.scope_waiting // 4))
        chosen = backlogged[: max(1, min(BATCH, free) // count)]
        count = max(1, min(count, self._affordable(room) // (len(quiet) + len(chosen))))
        first = turn // SAME % max(1, len(quiet))
        if backlogged or readable is not self._readable or first != self._first:
            self._readable, self._first = readable, -1 if backlogged else first
            self._rewinds = {
                one: one.ledger.rewinds for one in (*quiet[first:], *quiet[:first], *chosen)
            }
        return Choice(
            self._rewinds,
            count,
            is_partial=len(chosen) < len(backlogged),
            changes=self._holdings.hand.changes,
        )

    def _affordable(self, room: Room) -> int:
        """How many entries, of the size of those in hand, there is room for.

        A read brings them all before one of them is counted: large ones would not fit into memory.
        """
        return room.size_bytes // self._entry_bytes

    def is_outdated(self, choice: Choice) -> bool:
        """Whether a choice leaves out what can be read, or waits behind an old cursor."""
        is_all = len(choice.rewinds) == len(self._holdings)
        if is_all and choice.changes == self._holdings.hand.changes:
            return False
        for holding, rewinds in choice.rewinds.items():
            ledger = holding.ledger
            if ledger.rewinds != rewinds or holding.is_lost or ledger.is_draining:
                return True
        if is_all:
            return False
        return not choice.rewinds.keys() >= self.window.with_space().keys()

    def note(self, read: Collection[Holding], backlogged: Iterable[Holding], room: Room) -> None:
        """These were read, and of them these have more; ``room`` is left."""
        in_hand = self._config.in_flight - room.entries
        if in_hand > 0:
            size_bytes = self._config.in_flight_bytes - room.size_bytes
            self._entry_bytes = max(1, size_bytes // in_hand)
        if self._backlogged:
            for holding in read:
                self._backlogged.pop(holding, None)
        self._backlogged |= dict.fromkeys(backlogged)
