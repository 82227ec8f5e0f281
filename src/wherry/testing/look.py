"""Look: what Redis holds after all, read past the engine."""

from __future__ import annotations

from typing import Any, cast

from ..broker.deadletters import read_letter
from ..broker.link import Link
from ..broker.owners import read_owners
from ..broker.scripts import Scripts
from ..broker.streams import RawEntry, load_states
from ..broker.wire import Keys, unpack
from ..model import DeadLetter, Partition, ScopeId, partition_of


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
        return [found[0] if found and found[1] > 0 else "" for found in owners]

    async def backlog(self) -> int:
        """Number of unfinished entries."""
        names = [self._keys.entries(partition) for partition in self._partitions]
        return sum([int(await self._link.call("XLEN", name)) for name in names])

    async def dead_letters(self, scope_id: str | None) -> list[DeadLetter]:
        """The dead letters of a scope, or all of them, oldest first in each partition."""
        letters: list[DeadLetter] = []
        for partition in self._partitions:
            entries = await self._link.call("XRANGE", self._keys.dead(partition), "-", "+")
            letters += [read_letter(partition, entry) for entry in cast("list[RawEntry]", entries)]
        return [one for one in letters if scope_id is None or one.scope_id == scope_id]

    async def state(self, scope_id: str) -> dict[str, Any]:
        """The durable state of a scope, empty if none is kept."""
        partition = partition_of(scope_id, len(self._partitions))
        answers = await load_states(self._link, self._keys, [(partition, ScopeId(scope_id))])
        if isinstance(answers[0], Exception):
            raise answers[0]
        packed = answers[0][0]
        return cast("dict[str, Any]", unpack(packed)) if packed else {}
