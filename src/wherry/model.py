"""The vocabulary: what travels between producer, worker and reader.

Values only. Nothing here knows Redis, asyncio or a clock. ``docs/protocol.md`` tells the
same for other languages.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NewType

EntryId = NewType("EntryId", str)
"""Id of a stream entry, ``<milliseconds>-<sequence>``."""
Partition = NewType("Partition", int)
ScopeId = NewType("ScopeId", str)
Token = NewType("Token", str)
"""``<epoch>:<nonce>``: names one tenure of one owner; compared by equality only."""

Message = dict[str, Any]
"""An ASGI event: a map with a ``type``."""
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[..., Any]
"""An ASGI 3 application, or an ASGI 2 one (a callable that returns a callable)."""

ORIGIN = EntryId("0-0")
"""Smaller than the id of any entry: read from here to see everything."""

RESERVED_SCOPE_KEYS = frozenset({"asgi", "state", "extensions", "durable", "scope_id"})
"""What scope keys of an entry (``c``) may not set."""


def partition_of(scope_id: str, partitions: int) -> Partition:
    """The partition that a scope belongs to: CRC-32 of its UTF-8 bytes, modulo the count."""
    return Partition(zlib.crc32(scope_id.encode()) % partitions)


def id_key(entry_id: str) -> tuple[int, int]:
    """Sort key of an entry id; ids do not sort as text."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What an entry may have beside a scope and a message.

    Attributes:
        scope_keys: packed scope keys (field ``c``), b"" if none.
        inbox: extra inbox for a copy of the replies, or "".
        headers: header map, such as ``traceparent``.
        mark: 0 no end mark, 1 mark the end, 2 mark the end and write replies as they come.
        expires_unix_ms: 0, or the instant after which it is finished unhandled.
        message_id: idempotency key, or "".
    """

    scope_keys: bytes = b""
    inbox: str = ""
    headers: Mapping[str, Any] | None = None
    mark: int = 0
    expires_unix_ms: int = 0
    message_id: str = ""


PLAIN = Extras()
"""Those of an entry that has a scope and a message and no more, as most have."""


class Entry:
    """One input entry, decoded.

    One is made for each message, and a class without an ``__init__`` takes half as long to call:
    whoever makes one sets all of it.

    Attributes:
        id: stream id.
        partition: where it was read.
        scope_id: whom it is for.
        message: the ASGI event.
        body: the same as it was written, msgpack or JSON; a retry decodes it anew.
        size_bytes: bytes of its fields on the wire.
        extras: what else it has; `PLAIN` itself if that is nothing.
    """

    __slots__ = ("body", "extras", "id", "message", "partition", "scope_id", "size_bytes")

    id: EntryId
    partition: Partition
    scope_id: ScopeId
    message: Message
    body: bytes
    size_bytes: int
    extras: Extras


class AttemptsRow(NamedTuple):
    """What is known of an entry that has failed before, or that may have killed a process.

    Attributes:
        attempts: attempts that failed.
        not_before_unix_ms: by Redis' clock; earlier it is not tried again.
        error: class and text of the last error.
        crashes: unclean takeovers that found it first of its scope.
        probe: token of the tenure in which it is run alone, "" while it is not.
        is_held: it failed too often, and its scope waits for `retry` or `drop`.
    """

    attempts: int = 0
    not_before_unix_ms: int = 0
    error: str = ""
    crashes: int = 0
    probe: str = ""
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An input entry that cannot be handled, and why; it goes to the dead letters.

    Attributes:
        id: stream id.
        partition: where it was read.
        reason: what is wrong, one sentence.
        scope_id: the scope id if it has a usable one, else "".
        inbox: who waits for an answer, or "".
        size_bytes: bytes of its fields.
    """

    id: EntryId
    partition: Partition
    reason: str
    scope_id: ScopeId = ScopeId("")
    inbox: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One entry of a reply stream or inbox.

    Attributes:
        id: stream id; hand it to ``replies(after=...)`` to go on behind it.
        scope_id: who answered.
        message: the ASGI event, or None for a bare end mark or an error.
        cause: id of the input entry that was being handled, or "" if none was.
        index: place within the replies of that cause, from 0.
        attempt: ``<epoch>.<attempt>`` if it was written before its commit, or on the end mark.
        count: on the end mark, how many replies the cause has; otherwise None.
        error: error class and text if the cause expired or was buried; otherwise None.
        headers: of the cause's trace: ``traceparent``, ``tracestate``; empty if it has none.
    """

    id: EntryId
    scope_id: ScopeId
    message: Message | None
    cause: str
    index: int
    attempt: str = ""
    count: int | None = None
    error: str | None = None
    headers: Mapping[str, Any] = field(default_factory=lambda: {})

    @property
    def is_end(self) -> bool:
        """Whether nothing more comes for this cause."""
        return self.count is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answer to a cause begins anew: forget what came for it before.

    A worker died in mid-answer, and another one handles the message again.

    Attributes:
        scope_id: whose answer.
        cause: id of the input entry.
        attempt: the attempt that now answers, ``<epoch>.<attempt>``.
    """

    scope_id: ScopeId
    cause: str
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, or that holds its scope.

    Attributes:
        partition: where it lies.
        letter_id: its id there, by which it is replayed or dropped; of a held one the entry's.
        entry_id: of the input entry.
        scope_id: whom it was for, "" if that cannot be read.
        message: the event; None if it cannot be read.
        error: class and text of the error.
        traceback: of the application; "" if it never came so far.
        attempts: how often it was tried.
        died_unix_ms: when it was given up, by Redis' clock; 0 for a held one.
        headers: its headers.
        original_id: the id that it had before it was replayed for the first time, or "".
        fields: all fields of the entry as they were written, packed.
    """

    partition: Partition
    letter_id: EntryId
    entry_id: EntryId
    scope_id: ScopeId
    message: Message | None
    error: str
    traceback: str
    attempts: int
    died_unix_ms: int
    headers: Mapping[str, Any]
    original_id: str
    fields: Mapping[str, bytes]


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """A message on its way in: what a producer hands to the broker.

    Not frozen, as one is made for each message, and that would take three times as long.

    Attributes:
        scope_id: whom it is for.
        message: packed event (msgpack).
        scope_keys: packed scope keys or b"".
        inbox: extra inbox or "".
        headers: packed headers or b"".
        mark: as in `Entry`.
        expires_unix_ms: as in `Entry`.
        message_id: as in `Entry`.
    """

    scope_id: ScopeId
    message: bytes
    scope_keys: bytes = b""
    inbox: str = ""
    headers: bytes = b""
    mark: int = 0
    expires_unix_ms: int = 0
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberInfo:
    """What one worker says of itself.

    Attributes:
        worker_id: unique name of the process.
        fields: host, pid, version, partitions held, entries in flight and so on, as text.
    """

    worker_id: str
    fields: dict[str, str] = field(default_factory=lambda: {})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """One partition as `wherry status` shows it.

    Attributes:
        partition: its number.
        owner: worker id of the lease, "" if free.
        lease_ms: what is left of the lease by Redis' clock, 0 if free or run out.
        backlog: unfinished entries.
        dead: dead letters.
        oldest_ms: since when the first of the unfinished waits, 0 if there is none.
        node: of a cluster that serves it, "" if there is one server.
        is_away: that node does not answer; then nothing else is known.
    """

    partition: Partition
    owner: str = ""
    lease_ms: int = 0
    backlog: int = 0
    dead: int = 0
    oldest_ms: int = 0
    node: str = ""
    is_away: bool = False
