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

from ..broker.link import Command
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
        key: the stream.
        group: whose read covers it.
        followers: those who get what comes.
    """

    key: str
    group: _Group
    followers: dict[Follower, None] = field(default_factory=lambda: {})

    @property
    def cursor(self) -> str | None:
        """Last id seen; None before somebody has caught up."""
        return self.group.seen.get(self.key)

    def lag(self) -> None:
        for follower in self.followers:
            follower.lag()

    def fail(self, error: WherryError) -> None:
        self.group.seen.pop(self.key, None)
        for follower in self.followers:
            follower.error = error
            follower.wake.set()


class _Group:
    """Streams that share one read; the source of its watcher.

    Attributes:
        bundle: of all these streams; see `Session.bundle_of`.
        tails: stream -> its end.
        seen: stream -> last id seen, of those that are watched; kept ready for each read.
        watcher: does the reading.
    """

    __slots__ = ("_doubted", "_partitions", "_session", "bundle", "seen", "tails", "watcher")

    def __init__(self, session: Session, name: str, bundle: int) -> None:
        self._session = session
        self.bundle = bundle
        self._partitions = session.known.partitions if session.known is not None else 0
        self.tails: dict[str, _Tail] = {}
        self.seen: dict[str, str] = {}
        self._doubted: set[str] = set()  # streams not read since the connection was lost
        self.watcher = Watcher(session, self, name=name, count=_COUNT)

    def forget(self, key: str) -> None:
        """Nobody follows this stream any more."""
        del self.tails[key]
        self.seen.pop(key, None)
        self._doubted.discard(key)

    def cursors(self) -> Mapping[str, str]:
        return self.seen

    def before(self) -> Sequence[Command]:
        return ()

    def doubt(self) -> None:
        self._doubted = set(self.tails)

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
            self.seen[key] = entries[-1][0].decode()
            self._doubted.discard(key)
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
        doubted = {
            key: self.seen[key] for key in self._doubted if self.seen.get(key, ORIGIN) != ORIGIN
        }
        if not doubted:
            return
        opened = await self._session.opened()
        try:
            async with self._session.reads:
                answers = await opened.link.calls(
                    [("XRANGE", key, cursor, cursor) for key, cursor in doubted.items()]
                )
        except StoreUnavailable:
            return  # in doubt still
        for key, kept in zip(doubted, answers, strict=True):
            self._doubted.discard(key)
            if (not kept or isinstance(kept, Exception)) and key in self.tails:
                self.tails[key].lag()

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
            is_doubted = key in self._doubted
            if len(entries) == 1 and not is_doubted and self._session.config.reply_length > 1:
                gapless.add(key)
            elif tail.cursor != ORIGIN:
                asked.append((key, tail.cursor))
        if asked:
            opened = await self._session.opened()
            try:
                async with self._session.reads:
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
        cursors = dict(self.seen)
        async with self._session.reads:
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
            tail = _Tail(key, self._find_group(self._session.bundle_of(key)))
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
            tail.group.seen[tail.key] = after
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
        group.forget(follower.key)
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

    def _find_group(self, bundle: int) -> _Group:
        for group in self._groups:
            if group.bundle == bundle and len(group.tails) < STREAMS_PER_READ:
                return group
        self._made += 1
        group = _Group(self._session, f"replies-{self._made}", bundle)
        self._groups.append(group)
        return group
