"""Followers: many readers of reply streams share a few blocking reads.

The shared read only carries what is beyond doubt. A follower that was too slow for it, or whose
stream may have been trimmed under it, is told that it lags: then it reads on by itself from where
it is, with all the care of `history`, and comes back. Redis is the buffer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..broker.connect import Command
from ..broker.streams import RawEntry
from ..errors import ClientClosed, StoreUnavailable, WherryError
from ..model import ORIGIN, id_key
from .session import Session
from .watching import Watcher

STREAMS_PER_READ = 500
_COUNT = 100
_QUEUE = 256
_QUEUE_BYTES = 2**20


@dataclass(slots=True, eq=False)
class Follower:
    """One reader of one stream.

    Attributes:
        key: the stream.
        queue: entries that the shared read brought.
        size_bytes: their size.
        since: id behind which the queue is complete; None before the stream is watched.
        is_lagging: the queue is not complete any more.
        error: why nothing more will come.
        wake: set when one of these changes.
    """

    key: str
    queue: deque[RawEntry] = field(default_factory=lambda: deque())
    size_bytes: int = 0
    since: str | None = None
    is_lagging: bool = False
    error: WherryError | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, entries: Sequence[RawEntry]) -> None:
        """Queue entries, or lag if there is no room."""
        for entry in entries:
            if len(self.queue) >= _QUEUE or self.size_bytes > _QUEUE_BYTES:
                self.lag()
            if self.is_lagging:
                return
            self.queue.append(entry)
            self.size_bytes += sum(map(len, entry[1]))
        self.wake.set()

    def take(self) -> RawEntry:
        """The oldest queued entry."""
        entry = self.queue.popleft()
        self.size_bytes -= sum(map(len, entry[1]))
        return entry

    def lag(self) -> None:
        """Give the queue up: the follower reads by itself."""
        self.is_lagging = True
        self.queue.clear()
        self.size_bytes = 0
        self.wake.set()


@dataclass(slots=True, eq=False)
class _Tail:
    """The newest end of a stream that somebody follows.

    Attributes:
        group: whose read covers it.
        followers: those who get what comes.
        cursor: last id seen; None before somebody has caught up.
        is_doubted: the connection was lost since the last read.
    """

    group: _Group
    followers: dict[Follower, None] = field(default_factory=lambda: {})
    cursor: str | None = None
    is_doubted: bool = False

    def lag(self) -> None:
        for follower in self.followers:
            follower.lag()

    def fail(self, error: WherryError) -> None:
        self.cursor = None
        for follower in self.followers:
            follower.error = error
            follower.wake.set()


class _Group:
    """Streams that share one read; the source of its watcher."""

    __slots__ = ("_partitions", "_session", "tails", "watcher")

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._partitions = session.known.partitions if session.known is not None else 0
        self.tails: dict[str, _Tail] = {}
        self.watcher = Watcher(session, self, name=name, count=_COUNT)

    def cursors(self) -> Mapping[str, str]:
        return {key: tail.cursor for key, tail in self.tails.items() if tail.cursor is not None}

    def before(self) -> Sequence[Command]:
        return ()

    def doubt(self) -> None:
        for tail in self.tails.values():
            tail.is_doubted = True

    async def deliver(self, found: Mapping[str, list[RawEntry]]) -> None:
        if await self._have_moved():
            for tail in self.tails.values():
                tail.lag()
        await self._look_after_doubt()
        gapless = await self._find_gapless(found)
        for key, entries in found.items():
            tail = self.tails.get(key)
            if tail is None or tail.cursor is None:
                continue
            tail.cursor = entries[-1][0].decode()
            tail.is_doubted = False
            if key not in gapless:
                tail.lag()
                continue
            for follower in tail.followers:
                follower.put(entries)

    async def _have_moved(self) -> bool:
        """Whether there is another partition count now, so that streams have other keys."""
        try:
            now = (await self._session.current()).partitions
        except (StoreUnavailable, ClientClosed):
            return False
        except WherryError as error:
            for tail in self.tails.values():
                tail.fail(error)
            return False
        before, self._partitions = self._partitions, now
        return before != now

    async def _look_after_doubt(self) -> None:
        """See whether a replica took over that does not know what was read last."""
        doubted = [
            (tail, key, tail.cursor)
            for key, tail in self.tails.items()
            if tail.is_doubted and tail.cursor not in (None, ORIGIN)
        ]
        if not doubted:
            return
        opened = await self._session.opened()
        try:
            answers = await opened.link.calls(
                [("XRANGE", key, cursor or ORIGIN, cursor or ORIGIN) for _, key, cursor in doubted]
            )
        except StoreUnavailable:
            return  # in doubt still
        for (tail, _, _), kept in zip(doubted, answers, strict=True):
            tail.is_doubted = False
            if not kept or isinstance(kept, Exception):
                tail.lag()

    async def _find_gapless(self, found: Mapping[str, list[RawEntry]]) -> set[str]:
        """Streams where nothing can have been trimmed between the last read and this one.

        Trimming takes the oldest first. So nothing is missing if one that was seen before is
        still kept, or, as more than one is kept, if a single one came.
        """
        gapless: set[str] = set()
        asked: list[tuple[str, str]] = []
        for key, entries in found.items():
            tail = self.tails.get(key)
            if tail is None or tail.cursor is None:
                continue
            if len(entries) == 1 and not tail.is_doubted and self._session.config.reply_length > 1:
                gapless.add(key)
            elif tail.cursor != ORIGIN:
                asked.append((key, tail.cursor))
        if asked:
            opened = await self._session.opened()
            try:
                answers = await opened.link.calls(
                    [("XREVRANGE", key, cursor, "-", "COUNT", 1) for key, cursor in asked]
                )
            except StoreUnavailable:
                return gapless
            for (key, _), kept in zip(asked, answers, strict=True):
                if isinstance(kept, list) and kept:
                    gapless.add(key)
        return gapless

    async def refused(self, error: WherryError) -> None:
        opened = await self._session.opened()
        cursors = self.cursors()
        answers = await opened.link.calls(
            [("XREAD", "COUNT", 1, "STREAMS", key, cursor) for key, cursor in cursors.items()]
        )
        guilty = {
            key: answer
            for key, answer in zip(cursors, answers, strict=True)
            if isinstance(answer, WherryError)
        }
        for key, reason in (guilty or dict.fromkeys(cursors, error)).items():
            tail = self.tails.get(key)
            if tail is not None:
                tail.fail(reason)


class Followers:
    """All followers of one client."""

    __slots__ = ("_closing", "_groups", "_made", "_session", "_tails")

    def __init__(self, session: Session) -> None:
        """Start with none; each group of streams has a connection of its own."""
        self._session = session
        self._groups: list[_Group] = []
        self._tails: dict[str, _Tail] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._made = 0

    def join(self, key: str) -> Follower:
        """Begin to follow a stream; call `go_live` when all that it held was read."""
        tail = self._tails.get(key)
        if tail is None:
            tail = _Tail(self._find_group())
            self._tails[key] = tail.group.tails[key] = tail
        follower = Follower(key, since=tail.cursor)
        tail.followers[follower] = None
        return follower

    def restart(self, follower: Follower) -> None:
        """A lagging follower is about to read by itself; from now on its queue fills again."""
        tail = self._tails.get(follower.key)
        if tail is not None:
            follower.is_lagging = False
            follower.since = tail.cursor

    def go_live(self, follower: Follower, after: str) -> bool:
        """The follower has read the stream up to ``after``; False if it must read on by itself."""
        tail = self._tails.get(follower.key)
        if tail is None or follower.is_lagging:
            return False
        if tail.cursor is None:
            tail.cursor = after
            for other in tail.followers:
                other.since = after
            tail.group.watcher.changed()
        return follower.since is not None and id_key(after) >= id_key(follower.since)

    def leave(self, follower: Follower) -> None:
        """End following; a group without streams closes its connection, but for the last one."""
        tail = self._tails.get(follower.key)
        if tail is None or follower not in tail.followers:
            return
        del tail.followers[follower]
        if tail.followers:
            return
        group = tail.group
        del self._tails[follower.key]
        del group.tails[follower.key]
        if group.tails or len(self._groups) == 1:
            group.watcher.changed()
        else:
            self._groups.remove(group)
            closing = self._session.tasks.start(group.watcher.aclose(), "replies:close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """End the reading and fail all followers."""
        groups, self._groups = self._groups, []
        for tail in self._tails.values():
            for follower in tail.followers:
                follower.error = ClientClosed("this client was closed while it read replies")
                follower.wake.set()
        self._tails.clear()
        for group in groups:
            await group.watcher.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _find_group(self) -> _Group:
        for group in self._groups:
            if len(group.tails) < STREAMS_PER_READ:
                return group
        self._made += 1
        group = _Group(self._session, f"replies-{self._made}")
        self._groups.append(group)
        return group
