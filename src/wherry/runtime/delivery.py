"""Delivery: one entry in the hands of an instance, with the replies held for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..model import Entry


@dataclass(slots=True, eq=False)
class Delivery:
    """One attempt at one entry.

    Attributes:
        entry: what is handled.
        attempt: from 1.
        replies: packed replies held until the commit.
        replies_bytes: their size.
        emitted: replies of this attempt that were written already.
        is_streamed: replies are written as they come.
        run: number of this run within the tenure, 0 until it is needed.
        held_at_s: when the first held reply was sent, loop time.
    """

    entry: Entry
    attempt: int = 1
    replies: list[bytes] = field(default_factory=lambda: [])
    replies_bytes: int = 0
    emitted: int = 0
    is_streamed: bool = False
    run: int = 0
    held_at_s: float = 0.0
