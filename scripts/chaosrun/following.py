"""Live readers: what they saw and vanished shows nowhere else."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wherry import Client, RepliesTrimmed
from wherry.broker.connect import open_store
from wherry.broker.streams import RawEntry, read_streams
from wherry.broker.wire import Keys, read_reply
from wherry.errors import WherryError
from wherry.model import Reply, Restarted, id_key, partition_of

from .journal import LAG_MS, Journal

Seen = dict[str, dict[tuple[str, int], tuple[str, int]]]
"""Scope -> print of each reply that was ever read -> its (cause, index)."""

COUNT = 500
GATHER_S = 0.02
AGAIN_S = 0.1


def print_of(entry: RawEntry) -> tuple[str, int]:
    """Id and contents of a reply: two with the same are the same."""
    return entry[0].decode(), zlib.crc32(b"\0".join(entry[1]))


class LiveReader:
    """Reads the reply streams of all scopes as they grow, and tells the journal of answers.

    Attributes:
        seen: what was ever read.
    """

    def __init__(self, url: str, keys: Keys, names: Sequence[str], journal: Journal) -> None:
        self.seen: Seen = {name: {} for name in names}
        self._store = open_store(url)
        self._is_cluster = "+cluster" in url
        self._keys = keys
        self._journal = journal
        self._rewinds = 0

    def rewind(self) -> None:
        """Redis went back in time, as the journal says: read again what may be another now."""
        self._rewinds += 1

    async def run(self, partitions: int) -> None:
        """Read for ever; a cluster is asked for what lies in one slot at a time."""
        parts: dict[int, dict[str, str]] = {}
        for name in self.seen:
            partition = partition_of(name, partitions)
            part = parts.setdefault(partition if self._is_cluster else 0, {})
            part[self._keys.replies(partition, name)] = name
        async with asyncio.TaskGroup() as tasks:
            for names in parts.values():
                tasks.create_task(self._read(names), name="live")

    async def _read(self, names: Mapping[str, str]) -> None:
        link = self._store.link(answer_timeout_s=5.0)
        cursors = dict.fromkeys(names, "0-0")
        rewinds = self._rewinds
        try:
            while True:
                if rewinds != self._rewinds:
                    since, rewinds = self._journal.failovers[rewinds:], self._rewinds
                    oldest = f"{min(one.cut_ms for one in since) - LAG_MS}-0"
                    cursors = {key: min(at, oldest, key=id_key) for key, at in cursors.items()}
                try:
                    found = await read_streams(link, cursors, count=COUNT, block_ms=1000)
                except WherryError:
                    await asyncio.sleep(AGAIN_S)
                    continue
                if rewinds == self._rewinds:
                    for key, entries in found.items():
                        self._take(names[key], entries)
                        cursors[key] = entries[-1][0].decode()
                await asyncio.sleep(GATHER_S)
        finally:
            await link.aclose()

    def _take(self, name: str, entries: Sequence[RawEntry]) -> None:
        seen = self.seen[name]
        for entry in entries:
            reply = read_reply(*entry)
            seen[print_of(entry)] = (reply.cause, reply.index)
            is_done = reply.message is not None and reply.message["type"] == "done"
            if is_done or reply.is_end:
                self._journal.answer(name, reply.cause)


@dataclass(slots=True, eq=False)
class Follower:
    """One reader by `wherry.Client`.

    Attributes:
        events: what came, from the beginning or from where it began again.
        known: every (cause, index) that came.
        told: how often it was told that replies are gone.
    """

    events: list[Reply | Restarted] = field(default_factory=lambda: [])
    known: set[tuple[str, int]] = field(default_factory=lambda: set())
    told: int = 0

    async def run(self, client: Client, name: str) -> None:
        """Follow for ever; from the beginning again when replies are gone."""
        while True:
            try:
                async for event in client.replies(name, follow=True):
                    if event is not None:
                        self.events.append(event)
                    if isinstance(event, Reply):
                        self.known.add((event.cause, event.index))
            except RepliesTrimmed:
                self.told += 1
                self.events.clear()
