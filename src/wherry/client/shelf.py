"""Shelf: streams of an inbox that share one read, and what they bring.

There is one shelf for one server, and in a cluster one for each partition: no read spans two slots.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..broker.link import Command
from ..broker.streams import RawEntry
from ..broker.wire import read_reply
from ..errors import ReaderTooSlow, WherryError
from ..model import ORIGIN, Reply
from .session import Session
from .watching import Watcher

_COUNT = 512


@dataclass(slots=True, eq=False)
class Waiting:
    """A request whose answer is awaited.

    Attributes:
        most: replies that it holds.
        most_bytes: the same, in bytes.
        replies: came and were not taken.
        size_bytes: their size.
        error: why no more will come.
        wake: set when one of these changes.
    """

    most: int
    most_bytes: int
    replies: deque[tuple[Reply, int]] = field(default_factory=lambda: deque())
    size_bytes: int = 0
    error: WherryError | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, reply: Reply, size_bytes: int) -> None:
        """Add a reply; beyond the bounds no more are taken."""
        if self.error is not None:
            return
        if len(self.replies) >= self.most or self.size_bytes > self.most_bytes:
            self.fail(ReaderTooSlow(reply.cause, len(self.replies)))
            return
        self.replies.append((reply, size_bytes))
        self.size_bytes += size_bytes
        self.wake.set()

    def fail(self, error: WherryError) -> None:
        """Say that no more will come."""
        self.error = error
        self.wake.set()

    async def next(self) -> Reply:
        """Take the next reply.

        Raises:
            WherryError: no more will come.
        """
        while not self.replies:
            if self.error is not None:
                raise self.error
            self.wake.clear()
            await self.wake.wait()
        reply, size_bytes = self.replies.popleft()
        self.size_bytes -= size_bytes
        return reply


@dataclass(slots=True, eq=False)
class Place:
    """One partition's part of the inbox.

    Attributes:
        key: its stream.
        asking: requests whose sending is under way.
        waiting: cause -> request.
        taken: ids to be deleted with the next write.
        leaving: of those, how many went with the last write.
        extended_at_s: when the stream's TTL was last extended.
    """

    key: str
    asking: int = 0
    waiting: dict[str, Waiting] = field(default_factory=lambda: {})
    taken: list[bytes] = field(default_factory=lambda: [])
    leaving: int = 0
    extended_at_s: float = float("-inf")

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for what comes."""
        return bool(self.waiting) or self.asking > 0


class Early:
    """Replies of unknown causes: the sending that caused them may still be under way."""

    __slots__ = ("_issued", "_replies", "_under_way")

    def __init__(self) -> None:
        self._issued = 0
        self._under_way: dict[int, None] = {}
        self._replies: dict[tuple[str, str], tuple[int, list[tuple[Reply, int]]]] = {}

    def begin(self) -> int:
        """A sending begins; the ticket is for `end`."""
        self._issued += 1
        self._under_way[self._issued] = None
        return self._issued

    def end(self, ticket: int) -> None:
        """It has ended; what no sending under way can have caused is dropped."""
        del self._under_way[ticket]
        oldest = next(iter(self._under_way), self._issued + 1)
        for name, (newest, _) in list(self._replies.items()):
            if newest >= oldest:
                break
            del self._replies[name]

    def put(self, key: str, reply: Reply, size_bytes: int) -> None:
        """Keep a reply if a sending is under way."""
        if self._under_way:
            kept = self._replies.setdefault((key, reply.cause), (self._issued, []))
            kept[1].append((reply, size_bytes))

    def take(self, key: str, cause: str) -> list[tuple[Reply, int]]:
        """The replies of a cause that has become known."""
        return self._replies.pop((key, cause), (0, []))[1]


class Shelf:
    """Hands what is read to the requests that wait for it; the source of its watcher.

    Attributes:
        places: stream -> one partition's part of the inbox.
        watcher: does the reading.
    """

    __slots__ = ("_early", "_session", "places", "watcher")

    def __init__(self, session: Session, early: Early) -> None:
        """Read with a connection of its own, from the first request on."""
        self._session = session
        self._early = early
        self.places: dict[str, Place] = {}
        self.watcher = Watcher(session, self, name="inbox", count=_COUNT)

    def cursors(self) -> Mapping[str, str]:
        """The partitions with requests that wait."""
        return {place.key: ORIGIN for place in self.places.values() if place.is_watched}

    def before(self) -> Sequence[Command]:
        """Deletes what was taken, and keeps alive what may come while nobody can read."""
        now_s = asyncio.get_running_loop().time()
        ttl_s = self._session.config.reply_ttl_s
        commands: list[Command] = []
        for place in self.places.values():
            place.leaving = len(place.taken)
            if place.taken:
                commands.append(("XDEL", place.key, *place.taken))
            if place.is_watched and now_s - place.extended_at_s > ttl_s / 4:
                place.extended_at_s = now_s
                commands.append(("PEXPIRE", place.key, int(ttl_s * 1000)))
        return commands

    async def deliver(self, found: Mapping[str, list[RawEntry]]) -> None:
        """Hand the replies to those who wait for them."""
        for place in self.places.values():
            del place.taken[: place.leaving]
            place.leaving = 0
        for key, entries in found.items():
            place = self.places[key]
            for entry_id, flat in entries:
                place.taken.append(entry_id)
                try:
                    reply = read_reply(entry_id, flat)
                except ValueError:
                    continue  # whoever wrote it, it is no reply
                size_bytes = sum(map(len, flat))
                waiting = place.waiting.get(reply.cause)
                if waiting is None:
                    self._early.put(key, reply, size_bytes)
                else:
                    waiting.put(reply, size_bytes)

    def doubt(self) -> None:
        """Nothing to do: the next read starts at the beginning again."""

    async def refused(self, error: WherryError) -> None:
        """All requests fail with what Redis says."""
        self.fail(error)

    def fail(self, error: WherryError) -> None:
        """No request gets anything more."""
        for place in self.places.values():
            for waiting in place.waiting.values():
                waiting.fail(error)
            place.waiting = {}
