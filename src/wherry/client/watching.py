"""Watcher: one blocking read over a set of streams that may change at any moment.

A changed set takes effect at once: the read is unblocked where the server allows it, and its
connection is closed where not. Reading changes nothing in Redis, so a read that is cut short
loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..broker.link import Command, Link
from ..broker.slot_link import SlotLink
from ..broker.streams import RawEntry, read_streams
from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from .session import Opened, Session
from .tasks import Backoff

REST_S = 0.00005
"""After a read that brought something, for each stream that it covered."""
_UNBLOCK_TRIES = 3
_CUT_AGAIN_S = 0.05


class Source(Protocol):
    """Whose streams are watched."""

    def cursors(self) -> Mapping[str, str]:
        """Stream -> id behind which to read; empty ends the reading. It may change later."""
        ...

    def before(self) -> Sequence[Command]:
        """Commands that go before the read in the same write."""
        ...

    async def deliver(self, found: Mapping[str, list[RawEntry]]) -> None:
        """Take what was read, perhaps nothing; the commands of ``before`` were carried out."""
        ...

    def doubt(self) -> None:
        """The connection was lost; the read will be sent again."""
        ...

    async def refused(self, error: WherryError) -> None:
        """Redis refuses the read: stop asking for the stream that is to blame."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A read that is under way.

    Attributes:
        streams: what it covers.
        task: does it.
    """

    streams: frozenset[str]
    task: asyncio.Task[dict[str, list[RawEntry]]]

    async def cut(self) -> None:
        """Close its connection, by cancelling it, and return when it has ended."""
        while not self.task.done():
            # asyncio.wait_for of Python 3.11, under which redis-py writes, may lose one of these.
            self.task.cancel()
            await asyncio.wait([self.task], timeout=_CUT_AGAIN_S)


class Watcher:
    """Reads for one source as long as it has streams to watch."""

    __slots__ = (
        "_can_unblock", "_client_id", "_count", "_is_stopping", "_link", "_name", "_read",
        "_session", "_source", "_task", "_waking",
    )  # fmt: skip

    def __init__(self, session: Session, source: Source, *, name: str, count: int) -> None:
        """Read ``count`` entries of each stream at a time."""
        self._session = session
        self._source = source
        self._name = name
        self._count = count
        self._link: Link | None = None
        self._client_id = 0
        self._can_unblock = True
        self._read: _Read | None = None
        self._task: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None
        self._is_stopping = False

    def changed(self) -> None:
        """The set of streams has changed; all changes of one tick take effect together."""
        if self._is_stopping:
            return
        if self._task is None:
            if self._source.cursors():
                self._task = self._session.tasks.start(self._run(), f"{self._name}:read")
        elif self._read is not None and self._waking is None:
            self._waking = self._session.tasks.start(self._wake(), f"{self._name}:wake")

    async def aclose(self) -> None:
        """End the reading and close its connection."""
        self._is_stopping = True
        if self._read is not None:
            await self._interrupt(self._read)
        if self._task is not None:
            self._task.cancel()  # it may wait for the store to come back
            await asyncio.wait([self._task])
        await self._drop_link()

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while not self._is_stopping:
                if self._source.cursors():
                    if await self._read_once():
                        backoff.reset()
                    else:
                        await backoff.wait()
                elif not await self._tidy() and not self._source.cursors():
                    return
        finally:
            self._task = None

    async def _tidy(self) -> bool:
        """Carry out what should have gone before the next read; False if there is nothing."""
        commands = self._source.before()
        if not commands or self._link is None:
            return False
        try:
            await self._link.calls(commands)
        except StoreUnavailable:
            await self._drop_link()
            return False
        await self._source.deliver({})
        return True

    async def _read_once(self) -> bool:
        """One read and its delivery; False if it failed."""
        try:
            found = await self._read_cut()
        except StoreUnavailable:
            await self._drop_link()
            self._source.doubt()
            return False
        except WherryError as error:
            await self._source.refused(error)
            return False
        if found is not None:
            await self._source.deliver(found)
        if found:
            # A read costs as much as it has streams, however little it brings: what comes in the
            # next moment is brought together.
            await asyncio.sleep(REST_S * len(self._source.cursors()))
        return True

    async def _read_cut(self) -> dict[str, list[RawEntry]] | None:
        """The read itself; None if it was cut short."""
        opened = await self._session.opened()
        link = self._link
        if link is None:
            first = next(iter(self._source.cursors()), None)
            if first is None:
                return None
            link = await self._connect(opened, first)
        # Asked for only now: from here to the start of the read nothing can change them.
        cursors = dict(self._source.cursors())
        if self._is_stopping or not cursors:
            return None
        work = read_streams(
            link,
            cursors,
            count=self._count,
            block_ms=int(self._session.config.block_s * 1000),
            before=self._source.before(),
        )
        task = self._session.tasks.start(work, f"{self._name}:xread")
        read = self._read = _Read(frozenset(cursors), task)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await read.cut()
            raise
        finally:
            self._read = None
        if not task.cancelled():
            return task.result()
        await self._drop_link()
        return None

    async def _connect(self, opened: Opened, key: str) -> Link:
        """A link for the stream of a key, and for all others of its bundle."""
        self._source.doubt()  # it may lead to another server than the one that was read before
        timeout_s = self._session.config.socket_timeout_s
        link = self._link = opened.store.reading_link(key, answer_timeout_s=timeout_s)
        if self._can_unblock and not isinstance(link, SlotLink):
            try:
                self._client_id = int(await link.call("CLIENT", "ID"))
            except (StoreRefused, StoreError):
                self._can_unblock = False
        return link

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _wake(self) -> None:
        """Interrupt the read until one covers exactly what is to be watched."""
        try:
            while (read := self._read) and read.streams != frozenset(self._source.cursors()):
                await self._interrupt(read)
        finally:
            self._waking = None

    async def _interrupt(self, read: _Read) -> None:
        """End a read that blocks, and return when it has ended."""
        for _ in range(_UNBLOCK_TRIES):
            # It may not have reached the server yet: the next try goes a round trip later.
            if read.task.done() or (self._can_unblock and await self._unblock()):
                break
        else:
            await read.cut()
        await asyncio.wait([read.task])

    async def _unblock(self) -> bool:
        opened = await self._session.opened()
        try:
            async with self._session.reads:
                if isinstance(self._link, SlotLink):
                    return await self._link.unblock(opened.link)
                return await opened.link.call("CLIENT", "UNBLOCK", self._client_id) == 1
        except (StoreRefused, StoreError):
            self._can_unblock = False
        except StoreUnavailable:
            pass
        return False
