"""Replies: one reader's way through a scope's reply stream, from its beginning to the live end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ..broker.streams import RawEntry
from ..broker.wire import read_reply
from ..errors import RepliesTrimmed, StoreUnavailable
from ..model import ORIGIN, Reply, Restarted
from .answers import Answer, Attempts
from .follower import Follower
from .followers import Followers
from .history import Kept, Page, Place, read_page
from .session import Session
from .tasks import Backoff

_PAGE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader asks for.

    Attributes:
        scope_id: whose replies.
        after: behind this id; None from the oldest kept.
        follow: go on when all that is kept was read.
        heartbeat_s: yield None when there was nothing for so long; None never.
        cause: only the answer to this entry, up to its end.
    """

    scope_id: str
    after: str | None = None
    follow: bool = False
    heartbeat_s: float | None = None
    cause: str | None = None


class Replies:
    """One reader of one scope's replies."""

    __slots__ = ("_answer", "_attempts", "_backoff", "_due_at_s", "_followers", "_key", "_place",
                 "_session", "_wanted")  # fmt: skip

    def __init__(self, session: Session, followers: Followers, wanted: Wanted) -> None:
        """Read what is wanted; `events` does it, once."""
        self._session = session
        self._followers = followers
        self._wanted = wanted
        self._key = ""
        self._place = Place(wanted.after or ORIGIN)
        is_resumed = self._place.after != ORIGIN
        self._answer = Answer(wanted.cause, from_start=not is_resumed) if wanted.cause else None
        self._attempts = Attempts(is_unsure=is_resumed)
        self._backoff = Backoff()
        self._due_at_s = 0.0

    async def events(self) -> AsyncGenerator[Reply | Restarted | None]:
        """Yield replies, `Restarted` where an answer begins anew, and None as heartbeat.

        Raises:
            RepliesTrimmed: some of what was asked for is gone.
            WherryError: the store cannot be read; while following, only what time does not mend.
        """
        self._beat()
        async with aclosing(self._entries()) as entries:
            async for entry in entries:
                for event in () if entry is None else self._decode(entry):
                    yield event
                    self._beat()
                if self._answer is not None and self._answer.is_complete:
                    return
                if self._is_due():
                    yield None
                    self._beat()

    def _decode(self, entry: RawEntry) -> list[Reply | Restarted]:
        try:
            reply = read_reply(*entry)
        except ValueError:
            return []  # whoever wrote it, it is no reply
        if self._answer is None:
            restarted = self._attempts.take(reply)
            return [restarted, reply] if restarted else [reply]
        events = self._answer.take(reply)
        if self._answer.is_broken:
            raise RepliesTrimmed(self._wanted.scope_id, self._wanted.after or ORIGIN, reply.id)
        return list(events)

    async def _entries(self) -> AsyncGenerator[RawEntry | None]:
        """All entries in order; None when it is time to look at the clock."""
        if not self._wanted.follow:
            await self._find_key()
            async with aclosing(self._catch_up()) as entries:
                async for entry in entries:
                    yield entry
            return
        follower: Follower | None = None
        try:
            while follower is None or follower.error is None:
                try:
                    await self._find_key()
                except StoreUnavailable:
                    await self._wait_for_store()
                    yield None
                    continue
                if follower is None or follower.key != self._key:
                    if follower is not None:
                        self._followers.leave(follower)
                    follower = self._followers.join(self._key)
                self._followers.restart(follower)
                async with aclosing(self._catch_up()) as entries:
                    async for entry in entries:
                        yield entry
                if self._followers.go_live(follower, self._place.after):
                    async with aclosing(self._live(follower)) as entries:
                        async for entry in entries:
                            yield entry
            raise follower.error
        finally:
            if follower is not None:
                self._followers.leave(follower)

    async def _find_key(self) -> None:
        partition = (await self._session.current()).partition_of(self._wanted.scope_id)
        self._key = self._session.keys.replies(partition, self._wanted.scope_id)

    async def _catch_up(self) -> AsyncGenerator[RawEntry | None]:
        """What the stream holds now, page by page, each looked at for what is missing."""
        while True:
            try:
                page = await self._read_page()
            except StoreUnavailable:
                if not self._wanted.follow:
                    raise
                await self._wait_for_store()
                yield None
                continue
            self._backoff.reset()
            self._place.advance(page)
            for entry in page.entries:
                yield entry
            if page.is_last:
                return

    async def _read_page(self) -> Page:
        opened = await self._session.opened()
        async with self._session.reads:
            page = await read_page(opened.link, self._key, self._place.after, _PAGE)
        config = self._session.config
        kept = Kept(length=config.reply_length, ttl_ms=int(config.reply_ttl_s * 1000))
        if self._place.is_behind(page, kept):
            raise RepliesTrimmed(self._wanted.scope_id, self._place.after, page.first_id)
        if self._place.is_start and page.before is not None:
            self._resume(page.before)
        return page

    def _resume(self, entry: RawEntry) -> None:
        """The reply that was taken last tells which answer was under way."""
        try:
            last = read_reply(*entry)
        except ValueError:
            return
        if self._answer is not None:
            self._answer.resume(last)
        elif last.cause:
            self._attempts = Attempts()
            self._attempts.take(last)

    async def _live(self, follower: Follower) -> AsyncGenerator[RawEntry | None]:
        """What the shared read brings, until the follower lags."""
        while not follower.is_lagging and follower.error is None:
            if follower.queue:
                entry = follower.take()
                entry_id = entry[0].decode()
                if self._place.is_passed(entry_id):
                    continue
                self._place.step(entry_id)
                yield entry
                continue
            follower.wake.clear()
            if not self._due_at_s:
                await follower.wake.wait()
                continue
            try:
                async with asyncio.timeout_at(self._due_at_s):
                    await follower.wake.wait()
            except TimeoutError:
                yield None

    async def _wait_for_store(self) -> None:
        wait_s = self._backoff.next_s()
        if self._due_at_s:
            wait_s = min(wait_s, max(0.0, self._due_at_s - asyncio.get_running_loop().time()))
        await asyncio.sleep(wait_s)

    def _beat(self) -> None:
        if self._wanted.heartbeat_s is not None:
            self._due_at_s = asyncio.get_running_loop().time() + self._wanted.heartbeat_s

    def _is_due(self) -> bool:
        return 0 < self._due_at_s <= asyncio.get_running_loop().time()
