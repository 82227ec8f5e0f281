"""Outgoings: messages on their way to Redis, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..broker.redirects import is_try_again
from ..errors import BacklogFull, NotReplicated, StoreUnavailable, WherryError
from ..model import EntryId, Outgoing, Partition, partition_of

_OVERHEAD_BYTES = 64

Result = str | WherryError
"""What became of a message: its id, with "=" before it where an earlier sending of the same message
id has it; or why it was not sent."""


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
    results: list[Result | None]
    left: int
    done: asyncio.Future[None]
    order: Order | None
    replicas: int = 0

    def settled(self, count: int) -> None:
        """So many have got their results."""
        self.left -= count
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Parcel:
    """Those messages of a batch that go to one partition, in order.

    Attributes:
        batch: theirs.
        partition: to which they go.
        partitions: of so many; 0: the count is not known, and all go together as yet.
        places: their indexes in the batch.
        size_bytes: of all of them, about.
        was_sent: they may have been appended before, unseen.
    """

    batch: Batch
    partition: Partition
    partitions: int
    places: list[int] = field(default_factory=lambda: [])
    size_bytes: int = 0
    was_sent: bool = False

    def entries(self) -> list[Outgoing]:
        """What is sent."""
        entries = self.batch.entries
        return [entries[place] for place in self.places]

    def parted(self, partitions: int) -> list[Parcel]:
        """The same for the count that the namespace has now."""
        if partitions == self.partitions:
            return [self]
        return part(self.batch, self.places, partitions, was_sent=self.was_sent)

    def failed(self, error: WherryError, *, was_sent: bool) -> list[Failure]:
        """One failure for each message: some may be sent again, and others not."""
        was_sent = was_sent or self.was_sent
        return [
            Failure(parcel, error)
            for place in self.places
            for parcel in part(self.batch, (place,), self.partitions, was_sent=was_sent)
        ]

    def answered(self, answers: Sequence[str], confirmed: int | WherryError, backlog: int) -> None:
        """Each was appended or refused.

        Args:
            answers: of ``send.lua``.
            confirmed: so many replicas have them, or why nobody knows.
            backlog: bound of the partition.
        """
        results, replicas = self.batch.results, self.batch.replicas
        for place, answer in zip(self.places, answers, strict=True):
            if not answer:
                results[place] = self._refusal(backlog)
            elif replicas:
                results[place] = confirm(answer, replicas, confirmed)
            else:
                results[place] = answer
        self.batch.settled(len(answers))

    def refuse(self, backlog: int) -> None:
        """There is no room for them."""
        self.settle(self._refusal(backlog))

    def settle(self, error: WherryError) -> None:
        """This has become of those that nothing is known of."""
        results = self.batch.results
        left = [place for place in self.places if results[place] is None]
        for place in left:
            results[place] = error
        self.batch.settled(len(left))

    def abandon(self, error: WherryError) -> None:
        """Nothing more becomes of them, nor of what is behind them."""
        order = self.batch.order
        if order is not None and order.error is None:
            order.error = error
        self.settle(error)

    def _refusal(self, backlog: int) -> BacklogFull:
        """There is no room for one, nor for what is behind it."""
        if self.batch.order is not None:
            self.batch.order.refused.add(self.partition)
        return BacklogFull(self.partition, backlog)


def part(
    batch: Batch, places: Iterable[int], partitions: int, *, was_sent: bool = False
) -> list[Parcel]:
    """Messages of a batch by partition; together while the count of partitions is not known."""
    entries = batch.entries
    parcels: dict[Partition, Parcel] = {}
    for place in places:
        entry = entries[place]
        partition = partition_of(entry.scope_id, partitions) if partitions else Partition(0)
        parcel = parcels.get(partition)
        if parcel is None:
            parcel = parcels[partition] = Parcel(batch, partition, partitions, was_sent=was_sent)
        parcel.places.append(place)
        parcel.size_bytes += (
            len(entry.message) + len(entry.scope_keys) + len(entry.headers) + _OVERHEAD_BYTES
        )
    return list(parcels.values())


@dataclass(slots=True, eq=False)
class Failure:
    """A message that was not seen to be appended.

    Attributes:
        parcel: with this message alone.
        error: why.
    """

    parcel: Parcel
    error: WherryError

    def may_resend(self) -> bool:
        """Whether to send it once more does no harm, and may help."""
        if is_try_again(self.error):
            return True  # nothing was carried out
        [entry] = self.parcel.entries()
        return isinstance(self.error, StoreUnavailable) and bool(entry.message_id)

    def settle(self) -> None:
        """Tell the caller."""
        error = self.error
        if isinstance(error, StoreUnavailable):
            outcome = (
                "the message may or may not have been appended; with a message_id it can be sent "
                "again without harm"
                if self.parcel.was_sent
                else "the message was not appended"
            )
            raised = StoreUnavailable(f"{error}; {outcome}")
            raised.__cause__ = error
            error = raised
        if self.parcel.batch.order is not None:
            self.parcel.batch.order.error = error
        self.parcel.settle(error)


def read_answer(answer: str) -> Sent:
    """Read what ``send.lua`` answers for a message that has an id."""
    return Sent(EntryId(answer.removeprefix("=")), is_new=answer[0] != "=")


def confirm(answer: str, wanted: int, confirmed: int | WherryError) -> Result:
    """What became of a message that replicas were to have."""
    if isinstance(confirmed, WherryError):
        return NotReplicated(read_answer(answer).entry_id, wanted, 0, str(confirmed))
    if confirmed < wanted:
        return NotReplicated(read_answer(answer).entry_id, wanted, confirmed)
    return answer
