"""Look: what Redis holds after all, read past the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ..broker.connect import Link
from ..broker.leases import read_owners
from ..broker.scripts import Scripts
from ..broker.streams import RawEntry, load_states
from ..broker.wire import Keys, read_body, unpack
from ..errors import StoreError
from ..model import EntryId, Message, Partition, ScopeId, partition_of

_OWN_FIELDS = 5
"""A dead letter begins with so many fields of its own; those of the entry follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up.

    Attributes:
        entry_id: of the input entry.
        scope_id: whom it was for.
        message: the event; None if it cannot be read.
        error: class and text of the error.
        traceback: of the application; "" if it never came so far.
        attempts: how often it was tried.
    """

    entry_id: EntryId
    scope_id: str
    message: Message | None
    error: str
    traceback: str
    attempts: int


class Look:
    """Reads one namespace."""

    __slots__ = ("_keys", "_link", "_partitions", "_survey")

    def __init__(self, link: Link, keys: Keys, partitions: int) -> None:
        """Read on a link of its own."""
        self._link = link
        self._keys = keys
        self._partitions = [Partition(number) for number in range(partitions)]
        self._survey = Scripts(memory=True).survey

    async def owners(self) -> list[str]:
        """Worker id of each partition's owner, "" where the lease is free or has run out."""
        owners = await read_owners(self._link, self._survey, self._keys, self._partitions)
        return [owner if left_ms > 0 else "" for owner, left_ms in owners]

    async def backlog(self) -> int:
        """Number of unfinished entries."""
        names = [self._keys.entries(partition) for partition in self._partitions]
        return sum([int(await self._link.call("XLEN", name)) for name in names])

    async def dead_letters(self, scope_id: str | None) -> list[DeadLetter]:
        """The dead letters of a scope, or all of them, oldest first in each partition."""
        letters: list[DeadLetter] = []
        for partition in self._partitions:
            entries = await self._link.call("XRANGE", self._keys.dead(partition), "-", "+")
            letters += [_read_letter(entry) for entry in cast("list[RawEntry]", entries)]
        return [one for one in letters if scope_id is None or one.scope_id == scope_id]

    async def state(self, scope_id: str) -> dict[str, Any]:
        """The durable state of a scope, empty if none is kept."""
        partition = partition_of(scope_id, len(self._partitions))
        answers = await load_states(self._link, self._keys, [(partition, ScopeId(scope_id))])
        if isinstance(answers[0], StoreError):
            raise answers[0]
        packed = answers[0][0]
        return cast("dict[str, Any]", unpack(packed)) if packed else {}


def _read_letter(entry: RawEntry) -> DeadLetter:
    flat = entry[1]
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    own = {name: value.decode("utf-8", "replace") for name, value in pairs[:_OWN_FIELDS]}
    fields = dict(pairs[_OWN_FIELDS:])
    try:
        message = read_body(fields.get(b"m") or fields.get(b"j") or b"")
    except ValueError:
        message = None
    return DeadLetter(
        entry_id=EntryId(own[b"id"]),
        scope_id=fields.get(b"s", b"").decode("utf-8", "replace"),
        message=message,
        error=own[b"error"],
        traceback=own[b"traceback"],
        attempts=int(own[b"attempts"]),
    )
