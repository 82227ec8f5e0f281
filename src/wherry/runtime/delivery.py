"""Delivery: one entry in the hands of an instance, with the replies held for it."""

from __future__ import annotations

import asyncio

from ..broker.commits import Bury
from ..model import Entry


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
        timer: fails the attempt when it takes too long.
    """

    __slots__ = (
        "attempt",
        "emitted",
        "entry",
        "held_at_s",
        "is_streamed",
        "replies",
        "replies_bytes",
        "run",
        "timer",
    )

    def __init__(self, entry: Entry, attempt: int = 1) -> None:
        """Make an attempt at an entry; one is made for each message, so this is kept cheap."""
        self.entry = entry
        self.attempt = attempt
        self.replies: list[bytes] = []
        self.replies_bytes = 0
        self.emitted = 0
        self.is_streamed = entry.mark == 2
        self.run = 0
        self.held_at_s = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def begin_anew(self) -> None:
        """Forget what an attempt has sent; what was written stays, under another run."""
        self.replies = []
        self.replies_bytes = 0
        self.emitted = 0
        self.is_streamed = self.entry.mark == 2
        self.run = 0
        self.stop_timer()

    def stop_timer(self) -> None:
        """The attempt is over."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def has_expired(entry: Entry, redis_ms: int) -> bool:
    """Whether it is too late to handle an entry, by Redis' clock."""
    return 0 < entry.expires_unix_ms <= redis_ms


def expiry_of(entry: Entry) -> Bury:
    """What finishes an entry unhandled because it has expired."""
    return Bury(
        entry.id,
        entry.scope_id,
        "Expired: not handled before its expiry",
        inbox=entry.inbox,
        is_kept=False,
    )
