"""History: pages of one reply stream, and whether anything is missing before them.

Workers append and trim the oldest; nothing else removes a reply but the stream's expiry. Neither
leaves a trace, so what is missing is concluded here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ..broker.link import Command, Link
from ..broker.streams import RawEntry
from ..errors import StoreError, WherryError
from ..model import ORIGIN, id_key

_NO_KEY = "no such key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a reply stream, read in one transaction with what it says of itself.

    Attributes:
        entries: those behind the id that was asked for, oldest first.
        is_last: nothing is behind them.
        before: the newest kept entry at or before that id.
        first_id: oldest kept, "" if none.
        last_id: newest that ever was, "" if the stream does not exist.
        length: entries kept.
        added: entries ever added to this life of the stream; None before Redis 7.
        redis_ms: Redis' clock.
    """

    entries: list[RawEntry]
    is_last: bool
    before: RawEntry | None
    first_id: str
    last_id: str
    length: int
    added: int | None
    redis_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How long workers keep replies, as far as this client knows: its own settings.

    Attributes:
        length: replies of a scope that are kept at least.
        ttl_ms: after the last write.
    """

    length: int
    ttl_ms: int


async def read_page(link: Link, key: str, after: str, count: int) -> Page:
    """Read up to ``count`` entries behind ``after``.

    Raises:
        StoreUnavailable: no answer; read again.
        StoreError: the key is no stream.
    """
    commands: list[Command] = [
        ("MULTI",),
        ("TIME",),
        ("XINFO", "STREAM", key),
        ("XREVRANGE", key, after, "-", "COUNT", 1),
        ("XRANGE", key, f"({after}", "+", "COUNT", count),
        ("EXEC",),
    ]
    answers = await link.calls(commands)
    for answer in answers:
        if isinstance(answer, WherryError):
            raise answer
    time, info, before, entries = cast("list[Any]", answers[-1])
    for answer in (entries, before):
        if isinstance(answer, Exception):
            raise StoreError(f"reply stream {key!r} cannot be read: {answer}")
    said = _read_info(key, info)
    first = cast("RawEntry | None", said.get(b"first-entry"))
    return Page(
        entries=cast("list[RawEntry]", entries),
        is_last=len(entries) < count,
        before=cast("RawEntry", before[0]) if before else None,
        first_id=first[0].decode() if first else "",
        last_id=cast("bytes", said.get(b"last-generated-id", b"")).decode(),
        length=said.get(b"length", 0),
        added=said.get(b"entries-added", None if said else 0),
        redis_ms=int(time[0]) * 1000 + int(time[1]) // 1000,
    )


def _read_info(key: str, info: object) -> dict[bytes, Any]:
    if isinstance(info, Exception):
        if _NO_KEY in str(info):
            return {}
        raise StoreError(f"reply stream {key!r} cannot be read: {info}")
    flat = cast("list[Any]", info)
    return dict(zip(flat[::2], flat[1::2], strict=True))


@dataclass(slots=True, eq=False)
class Place:
    """How far a reader has come.

    Attributes:
        after: id of the last reply taken, "0-0" if none.
        number: how many were added to the stream up to that one; None if not known.
        is_start: nothing was read yet.
        is_taken: ``after`` is a reply that was taken here, and not one that somebody names.
    """

    after: str
    number: int | None = None
    is_start: bool = True
    is_taken: bool = False

    def is_behind(self, page: Page, kept: Kept) -> bool:
        """Whether a reply between this place and the page is gone, as far as can be told.

        In doubt it says yes, but for a stream that can have expired since: whether there were
        replies behind ``after`` in it, nobody knows.
        """
        after = self.after
        if self.is_start and after == ORIGIN:
            return False
        if not page.last_id:
            return after != ORIGIN and page.redis_ms - _ms(after) < kept.ttl_ms
        if id_key(after) > id_key(page.last_id):
            return True  # Redis has forgotten it: it went back in time
        if page.before is not None:
            # Trimming takes the oldest first. If it is gone and older ones are not, Redis went
            # back in time, and the stream has gone on since.
            return self.is_taken and page.before[0].decode() != after
        if after == page.last_id or _follows(page.first_id, after):
            return False
        if page.added is not None:
            trimmed = page.added - page.length
        else:
            trimmed = 0 if page.length < kept.length else None
        if trimmed == 0:
            # A new life of the stream: the old one has expired, or was deleted before its time.
            return after != ORIGIN and _ms(page.first_id) - _ms(after) < kept.ttl_ms
        return trimmed is None or trimmed != self.number

    def advance(self, page: Page) -> None:
        """Go behind a page."""
        read = len(page.entries)
        if not page.last_id:
            self.number = 0
        elif page.added is None:
            self.number = None
        elif page.is_last:
            self.number = page.added
        elif page.before is None:
            self.number = page.added - page.length + read
        elif self.number is not None:
            self.number += read
        if page.entries:
            self.after = page.entries[-1][0].decode()
            self.is_taken = True
        self.is_start = False

    def is_passed(self, entry_id: str) -> bool:
        """Whether an entry was taken before."""
        return id_key(entry_id) <= id_key(self.after)

    def step(self, entry_id: str) -> None:
        """Go behind one entry that came next."""
        self.after = entry_id
        self.is_taken = True
        if self.number is not None:
            self.number += 1


def _ms(entry_id: str) -> int:
    return id_key(entry_id)[0]


def _follows(entry_id: str, after: str) -> bool:
    """Whether no id can lie between two."""
    milliseconds, sequence = id_key(after)
    return id_key(entry_id) == (milliseconds, sequence + 1)
