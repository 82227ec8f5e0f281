"""Who owns unfinished entries: a fault counts only if its victim did.

Two looks decide, one before the fault and one after it: the entry that stood first in a partition
of the victim before must still stand there after, in the victim's hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherry.broker.connect import open_store
from wherry.broker.leases import read_members
from wherry.broker.owners import read_owners
from wherry.broker.scripts import Scripts
from wherry.broker.wire import Keys
from wherry.errors import WherryError
from wherry.model import Partition

Unfinished = Mapping[Partition, bytes]
"""Partition -> id of the entry that stands first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look shows.

    Attributes:
        workers: process id -> worker id of each member.
        owners: partition -> worker id of a lease that has not run out.
        first: partition -> id of its first entry, if it has any.
    """

    workers: Mapping[int, str]
    owners: Mapping[Partition, str]
    first: Unfinished

    def of(self, pid: int) -> Unfinished:
        """Unfinished entries of a worker."""
        worker = self.workers.get(pid)
        return {p: entry for p, entry in self.first.items() if self.owners.get(p) == worker}

    def holds(self, pid: int) -> int:
        """How many partitions a worker has."""
        worker = self.workers.get(pid)
        return sum(owner == worker for owner in self.owners.values())

    def still_of(self, pid: int, before: Unfinished) -> Unfinished:
        """Those of an earlier look that are unfinished and the worker's all the same."""
        now = self.of(pid)
        return {p: entry for p, entry in before.items() if now.get(p) == entry}

    def still(self, before: Unfinished) -> Unfinished:
        """Those of an earlier look that are unfinished."""
        return {p: entry for p, entry in before.items() if self.first.get(p) == entry}


class Lookout:
    """Looks."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._link = open_store(url).link()
        self._keys = keys
        self._survey = Scripts(allow_oom=False).survey

    async def look(self) -> Look | None:
        """Members, owners and first entries; None while Redis does not answer."""
        try:
            count = int(await self._link.call("HGET", self._keys.meta, "partitions") or 0)
            if not count:
                return None
            partitions = [Partition(number) for number in range(count)]
            members = await read_members(self._link, self._keys)
            owners = await read_owners(self._link, self._survey, self._keys, partitions)
            firsts = await self._link.calls(
                [("XRANGE", self._keys.entries(p), "-", "+", "COUNT", 1) for p in partitions]
            )
        except WherryError:
            return None
        return Look(
            workers={int(one.fields["pid"]): one.worker_id for one in members},
            owners={p: found[0] for p, found in zip(partitions, owners, strict=True)
                    if found and found[0] and found[1] > 0},
            first={p: found[0][0] for p, found in zip(partitions, firsts, strict=True)
                   if isinstance(found, list) and found},
        )  # fmt: skip

    async def move(self, url: str) -> None:
        """Look at another server from now on."""
        await self.aclose()
        self._link = open_store(url).link()

    async def aclose(self) -> None:
        """Disconnect."""
        await self._link.aclose()

    async def unfinished(self) -> frozenset[tuple[str, str]]:
        """Scope and id of all unfinished entries."""
        count = int(await self._link.call("HGET", self._keys.meta, "partitions"))
        found = await self._link.calls(
            [("XRANGE", self._keys.entries(Partition(p)), "-", "+") for p in range(count)]
        )
        return frozenset(
            (flat[flat.index(b"s") + 1].decode(), entry_id.decode())
            for entries in found
            for entry_id, flat in entries
        )
