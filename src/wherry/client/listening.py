"""Listener: reads those streams of a set of which the server says that they have changed.

A blocking read costs both sides as much as it has streams, however little it brings. A server that
keeps track of what a connection has read gives notice of each stream once, when it has changed:
then only that one is read, and followed again by being read. Notice only hurries. All streams are
read every ``block_s``, so that one that was lost delays what came, and loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..broker.single import SingleLink
from ..broker.streams import RawEntry, read_streams
from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from .session import Session
from .tasks import Backoff

STREAMS_PER_COMMAND = 500
REST_S = 0.00005
"""After a read, for each stream of the set; what comes meanwhile is brought together."""
LONGEST_REST_S = 0.01
_CHANGED = b"invalidate"


class Source(Protocol):
    """Whose streams are read."""

    def cursors(self) -> Mapping[str, str]:
        """Stream -> id behind which to read; empty ends the reading. It may change later."""
        ...

    async def deliver(self, found: Mapping[str, list[RawEntry]]) -> None:
        """Take what was read, perhaps nothing."""
        ...

    def doubt(self) -> None:
        """The connection is another one than before."""
        ...

    async def refused(self, error: WherryError) -> None:
        """Redis refuses the read: stop asking for the stream that is to blame."""
        ...

    def deaf(self) -> None:
        """This server gives no notice: read in another way."""
        ...


@dataclass(slots=True, eq=False)
class _Ear:
    """What one connection has told.

    Attributes:
        due: streams to be read.
        quiet: streams that were read, and of whose next change notice will come.
        is_changed: the set of streams may be another.
        is_lost: the connection is closed.
        news: set when one of these changes.
        all_due_at_s: when all are to be read, loop time.
    """

    due: dict[str, None] = field(default_factory=lambda: {})
    quiet: set[str] = field(default_factory=lambda: set())
    is_changed: bool = False
    is_lost: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    all_due_at_s: float = 0.0

    def hear(self, said: list[Any] | None) -> None:
        """Take what the server says unasked; None: nothing more will come."""
        if said is None:
            self.is_lost = True
        elif said[0] == _CHANGED and said[1] is not None:
            changed = [key.decode() for key in said[1]]
            self.quiet.difference_update(changed)
            self.due.update(dict.fromkeys(changed))
        else:  # everything was deleted
            self.quiet.clear()
            self.is_changed = True
        self.news.set()

    def take(self, cursors: Mapping[str, str]) -> list[str]:
        """The streams that are due, now quiet: a notice that comes from now on counts."""
        if self.is_changed:
            self.is_changed = False
            self.due.update(dict.fromkeys(cursors.keys() - self.quiet))
            self.quiet &= cursors.keys()
        taken = [key for key in self.due if key in cursors]
        self.due = {}
        self.quiet.update(taken)
        return taken

    def give_back(self, keys: Iterable[str]) -> None:
        """They were not read to their end."""
        self.due.update(dict.fromkeys(keys))
        self.news.set()


class Listener:
    """Reads for one source as long as it has streams."""

    __slots__ = ("_count", "_ear", "_is_stopping", "_link", "_name", "_session", "_source", "_task")

    def __init__(self, session: Session, source: Source, *, name: str, count: int) -> None:
        """Read ``count`` entries of each stream at a time."""
        self._session = session
        self._source = source
        self._name = name
        self._count = count
        self._link: SingleLink | None = None
        self._ear = _Ear()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def heeded(self) -> int:
        """Of how many streams the next change will be noticed."""
        return len(self._ear.quiet & self._source.cursors().keys())

    def changed(self) -> None:
        """The set of streams has changed; all changes of one tick take effect together."""
        self._ear.is_changed = True
        self._ear.news.set()
        if self._task is None and not self._is_stopping and self._source.cursors():
            self._task = self._session.tasks.start(self._run(), f"{self._name}:listen")

    async def aclose(self) -> None:
        """End the reading and close its connection."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._drop_link()

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while self._source.cursors():
                try:
                    if self._link is None and not await self._connect():
                        self._source.deaf()
                        return
                    await self._listen()
                    await self._read()
                except StoreUnavailable:
                    await self._drop_link()
                    await backoff.wait()
                except WherryError as error:
                    await self._source.refused(error)
                    await backoff.wait()
                else:
                    backoff.reset()
                    # What comes in the next moment is brought together.
                    streams = len(self._source.cursors())
                    await asyncio.sleep(min(LONGEST_REST_S, REST_S * streams))
        finally:
            self._task = None

    async def _connect(self) -> bool:
        """Connect; False if there is no notice to be had."""
        opened = await self._session.opened()
        ear = self._ear = _Ear()
        link = opened.store.noticing_link(
            ear.hear, answer_timeout_s=self._session.config.socket_timeout_s
        )
        if link is None:
            return False
        try:
            await link.connected()
        except (StoreError, StoreRefused):
            return False
        self._link = link
        self._source.doubt()  # it may lead to another server than the one that was read before
        return True

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _listen(self) -> None:
        """Wait until streams are due.

        Raises:
            StoreUnavailable: the connection is lost.
        """
        ear, loop = self._ear, asyncio.get_running_loop()
        if loop.time() < ear.all_due_at_s:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ear.all_due_at_s):
                    await ear.news.wait()
        if ear.is_lost:
            raise StoreUnavailable("the connection that gave notice of replies is lost")
        if loop.time() >= ear.all_due_at_s:
            ear.all_due_at_s = loop.time() + self._session.config.block_s
            ear.give_back(self._source.cursors())
        ear.news.clear()

    async def _read(self) -> None:
        """Read what is due.

        Raises:
            StoreUnavailable: the connection broke; what is due is forgotten with it.
            WherryError: Redis refuses a read; what is due stays due.
        """
        link, ear = self._link, self._ear
        assert link is not None, "a link comes with its ear"
        cursors = self._source.cursors()
        due = ear.take(cursors)
        for start in range(0, len(due), STREAMS_PER_COMMAND):
            part = due[start : start + STREAMS_PER_COMMAND]
            asked = {key: cursors[key] for key in part if key in cursors}
            if not asked:
                continue
            try:
                found = await read_streams(link, asked, count=self._count, block_ms=None)
            except WherryError:
                ear.quiet.difference_update(due[start:])
                ear.give_back(due[start:])
                raise
            if unread := [key for key, entries in found.items() if len(entries) >= self._count]:
                ear.give_back(unread)
            await self._source.deliver(found)
