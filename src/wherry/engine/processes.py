"""Processes: what a supervisor knows of its workers, and the steps that it can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Life(Enum):
    """Life of a process."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


TRANSITIONS: Mapping[Life, frozenset[Life]] = {
    Life.STARTING: frozenset({Life.SERVING, Life.STOPPING}),
    Life.SERVING: frozenset({Life.STOPPING}),
    Life.STOPPING: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process; its number is used once, its slot again and again."""

    number: int
    slot: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send a process SIGTERM: the first makes it drain, the second hand back at once."""

    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a process SIGKILL."""

    number: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Report something, about one process if a number is given."""

    event: str
    number: int | None = None
    data: Mapping[str, object] = field(default_factory=lambda: {})
    is_warning: bool = True


Step = Start | Terminate | Kill | Tell


@dataclass(slots=True, eq=False)
class Process:
    """One process.

    Attributes:
        number: its own.
        slot: where it serves, or is to serve.
        generation: how often a restart had been asked for when it was started.
        started_at_s: when.
        ready_at_s: since when it has been a member of the fleet, None before.
        kill_at_s: when it will have had enough time to end, None while it need not.
        worn: why it asked to be replaced, "" if it has not.
        life: see `Life`.
        is_killed: it was killed because it did not end.
        is_slow: it was told of that its start takes long.
    """

    number: int
    slot: int
    generation: int
    started_at_s: float
    ready_at_s: float | None = None
    kill_at_s: float | None = None
    worn: str = ""
    life: Life = Life.STARTING
    is_killed: bool = False
    is_slow: bool = False

    def move(self, life: Life) -> None:
        """Change the life; the one place where it changes.

        Raises:
            ValueError: a step that `TRANSITIONS` does not have; nothing is changed.
        """
        if life not in TRANSITIONS[self.life]:
            raise ValueError(f"process {self.number} cannot go from {self.life} to {life}")
        self.life = life


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one worker.

    Attributes:
        index: its number, from 0.
        current: serves, or is the only one that is to.
        successor: takes over from ``current`` when it is ready.
        start_at_s: nothing is started before.
        failed_starts: processes in a row that ended before they were ready.
        quick_ends: the same, and those that ended soon after.
    """

    index: int
    current: Process | None = None
    successor: Process | None = None
    start_at_s: float = 0.0
    failed_starts: int = 0
    quick_ends: int = 0
