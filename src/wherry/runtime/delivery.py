"""Delivery: one entry in the hands of an instance, with the replies held for it."""

from __future__ import annotations

from typing import Protocol

from ..broker.commits import Bury
from ..broker.wire import pack
from ..model import PLAIN, Entry
from ..tracing import carried


class Timer(Protocol):
    """Is told when an attempt is over: what fails it when it takes too long, or measures it."""

    def cancel(self) -> None:
        """It is over."""
        ...


class Delivery:
    """One attempt at one entry; `deliver` makes it.

    Attributes:
        entry: what is handled.
        attempt: from 1.
        replies: packed replies held until the commit.
        replies_bytes: their size.
        emitted: replies of this attempt that were written already.
        is_streamed: replies are written as they come.
        run: number of this run within the tenure, 0 until it is needed.
        held_at_s: when the first held reply was sent, loop time; not set before.
        timer: told when the attempt is over, None if nobody waits for that.
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

    entry: Entry
    attempt: int
    replies: list[bytes] | tuple[()]
    replies_bytes: int
    emitted: int
    is_streamed: bool
    run: int
    held_at_s: float
    timer: Timer | None

    def begin_anew(self) -> None:
        """Forget what an attempt has sent; what was written stays, under another run."""
        self.replies = ()
        self.replies_bytes = 0
        self.emitted = 0
        self.is_streamed = self.entry.extras.mark == 2
        self.run = 0
        self.stop_timer()

    def stop_timer(self) -> None:
        """The attempt is over."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def deliver(entry: Entry) -> Delivery:
    """The first attempt at an entry; without an ``__init__``, for the reason that `Entry` has."""
    delivery = Delivery()
    delivery.entry = entry
    delivery.attempt = 1
    delivery.replies = ()
    delivery.replies_bytes = delivery.emitted = delivery.run = 0
    delivery.is_streamed = entry.extras is not PLAIN and entry.extras.mark == 2
    delivery.timer = None
    return delivery


def has_expired(entry: Entry, redis_ms: int) -> bool:
    """Whether it is too late to handle an entry, by Redis' clock."""
    return 0 < entry.extras.expires_unix_ms <= redis_ms


def reply_headers(entry: Entry) -> bytes:
    """Packed headers of the replies to an entry: its trace; b"" if it belongs to none."""
    found = carried(entry.extras.headers) if entry.extras.headers else {}
    return pack(found, "headers") if found else b""


def expiry_of(entry: Entry) -> Bury:
    """What finishes an entry unhandled because it has expired."""
    return Bury(
        entry.id,
        entry.scope_id,
        "Expired: not handled before its expiry",
        inbox=entry.extras.inbox,
        is_kept=False,
        headers=reply_headers(entry),
    )
