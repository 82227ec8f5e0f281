"""Standing: what a lane is told apart by when one must be ended to make room."""

from __future__ import annotations

from typing import Self

from .record import Record


class Standing(Record):
    """The place of a lane among all; `wherry.runtime.idle` keeps it.

    Attributes:
        last_used: Unix time in seconds of the last use.
        is_idle: it may be ended.
        used_before: the lane that was used before it.
        used_after: the one after it.
    """

    __slots__ = ("is_idle", "last_used", "used_after", "used_before")

    def __init__(self, now_s: float) -> None:
        """Stand nowhere, and have been used now."""
        super().__init__()
        self.last_used = now_s
        self.is_idle = False
        self.used_before: Self | None = None
        self.used_after: Self | None = None
