"""Outgoings: messages on their way to Redis, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..broker.redirects import is_try_again
from ..errors import BacklogFull, NotReplicated, StoreUnavailable, WherryError
from ..model import EntryId, Outgoing, Partition


class Sent(NamedTuple):
    """An appended message.

    Attributes:
        entry_id: its id, or that of the first sending of its message id.
        is_new: whether this sending appended it.
    """

    entry_id: EntryId
    is_new: bool


@dataclass(slots=True, eq=False)
class Order:
    """Binds batches together: what is behind a refused message of its partition is refused.

    Attributes:
        refused: partitions that refused one.
        error: what ended it all; nothing further is sent.
    """

    refused: set[Partition] = field(default_factory=lambda: set())
    error: WherryError | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Messages that one caller waits for.

    Attributes:
        entries: the messages.
        results: what became of each; complete when ``done`` is.
        left: how many are open.
        done: for the caller; cancelled when it has gone, and then what was not sent is not.
        order: shared with the caller's other batches.
        replicas: how many are to have it.
    """

    entries: Sequence[Outgoing]
    results: list[Sent | WherryError | None]
    left: int
    done: asyncio.Future[None]
    order: Order | None
    replicas: int = 0


class Parcel(NamedTuple):
    """One message.

    Attributes:
        entry: what is sent.
        batch: with whom.
        place: its index there.
        size_bytes: about.
        partition: to which it was thought to go when it was put; None: that was not known.
    """

    entry: Outgoing
    batch: Batch
    place: int
    size_bytes: int
    partition: Partition | None = None

    def refuse(self, partition: Partition, backlog: int) -> None:
        """There is no room for it, nor for what is behind it."""
        if self.batch.order is not None:
            self.batch.order.refused.add(partition)
        self.settle(BacklogFull(partition, backlog))

    def settle(self, result: Sent | WherryError) -> None:
        """This has become of it."""
        batch = self.batch
        batch.results[self.place] = result
        batch.left -= 1
        if batch.left == 0 and not batch.done.done():
            batch.done.set_result(None)


@dataclass(slots=True, eq=False)
class Failure:
    """A message that was not seen to be appended.

    Attributes:
        parcel: the message.
        error: why.
        was_sent: whether it may have been appended all the same.
    """

    parcel: Parcel
    error: WherryError
    was_sent: bool

    def may_resend(self) -> bool:
        """Whether to send it once more does no harm, and may help."""
        if is_try_again(self.error):
            return True  # nothing was carried out
        return isinstance(self.error, StoreUnavailable) and bool(self.parcel.entry.message_id)

    def settle(self) -> None:
        """Tell the caller."""
        error = self.error
        if isinstance(error, StoreUnavailable):
            outcome = (
                "the message may or may not have been appended; with a message_id it can be sent "
                "again without harm"
                if self.was_sent
                else "the message was not appended"
            )
            raised = StoreUnavailable(f"{error}; {outcome}")
            raised.__cause__ = error
            error = raised
        if self.parcel.batch.order is not None:
            self.parcel.batch.order.error = error
        self.parcel.settle(error)


def confirm(answer: str, wanted: int, confirmed: int | WherryError) -> Sent | NotReplicated:
    """What became of a message that replicas were to have."""
    entry_id = EntryId(answer.removeprefix("="))
    if isinstance(confirmed, WherryError):
        return NotReplicated(entry_id, wanted, 0, str(confirmed))
    if confirmed < wanted:
        return NotReplicated(entry_id, wanted, confirmed)
    return Sent(entry_id, is_new=answer[0] != "=")
