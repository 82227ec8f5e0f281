"""Operations of an owner on its partition, and what may become of them.

A call carries many of them, see `wherry.broker.calls`; their order is the order of their effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

from ..model import EntryId, ScopeId

OPERATION_BYTES = 128
REPLY_BYTES = 512
"""What an operation, and each of its replies, counts for beside its own bytes.

So `MAX_BYTES` bounds the number of replies of a call, too: about 2,000, however short they are.
"""
ANSWER_BYTES = OPERATION_BYTES + REPLY_BYTES


class Outcome(Enum):
    """What became of one operation."""

    DONE = "done"
    ALREADY = "already"
    VOID = "void"
    STALE = "stale"
    BAD = "bad"


@dataclass(slots=True)
class StateChange:
    """What a commit does to the durable state of its scope.

    Attributes:
        expected: version the instance was built on: id of the entry that wrote it, "" if none.
        packed: None leaves it as it is, b"" deletes it, anything else is written.
    """

    expected: str
    packed: bytes | None


class Answer(NamedTuple):
    """Finish an entry with one reply to its scope, or that and a changed state, as most are.

    Attributes:
        expected: version of the state that the instance was built on, see `StateChange`.
        packed: what the state becomes, not empty; None without one.
    """

    entry_id: EntryId
    scope_id: ScopeId
    reply: bytes
    size_bytes: int = 0
    expected: str = ""
    packed: bytes | None = None


answer_of = cast(
    "Callable[[tuple[EntryId, ScopeId, bytes, int, str, bytes | None]], Answer]",
    partial(cast("Any", tuple).__new__, Answer),
)
"""An `Answer` of all its parts; one is made for each message, and so it takes half the time."""


@dataclass(slots=True)
class Commit:
    """Finish an entry: its replies and its state take effect, and it leaves the stream.

    Attributes:
        end: attempt to put on the end mark, "" for no mark.
        first: index of the first reply of ``replies``; those before were emitted.
        headers: packed headers of the replies, or b"".
    """

    entry_id: EntryId
    scope_id: ScopeId
    replies: Sequence[bytes]
    inbox: str = ""
    state: StateChange | None = None
    end: str = ""
    first: int = 0
    size_bytes: int = 0
    headers: bytes = b""


@dataclass(slots=True)
class Emit:
    """Write replies before the commit, or outside any message (``cause`` "").

    Attributes:
        number: counts up within one tenure; the script applies each number once.
        attempt: ``<epoch>.<attempt>``, "" outside any message.
        headers: packed headers of the replies, or b"".
    """

    number: int
    cause: str
    scope_id: ScopeId
    replies: Sequence[bytes]
    inbox: str = ""
    attempt: str = ""
    first: int = 0
    size_bytes: int = 0
    headers: bytes = b""


@dataclass(slots=True)
class Fail:
    """Write down a failed attempt; does nothing when the entry is gone."""

    entry_id: EntryId
    scope_id: ScopeId
    row: bytes
    size_bytes: int = 0
    headers: ClassVar[bytes] = b""


@dataclass(slots=True)
class Hold:
    """Write down that an entry waits to be retried or dropped, and tell those who wait for it.

    Attributes:
        attempt: ``<epoch>.<run>`` on the error reply: should the entry be retried, its answer
            starts anew.
        headers: packed headers of that reply, or b"".
    """

    entry_id: EntryId
    scope_id: ScopeId
    row: bytes
    reason: str
    inbox: str = ""
    first: int = 0
    attempt: str = ""
    size_bytes: int = 0
    headers: bytes = b""


@dataclass(slots=True)
class Bury:
    """Finish an entry with an error and tell those who wait for its answer.

    Attributes:
        is_kept: move it to the dead letters; otherwise it is gone, as an expired one is.
        headers: packed headers of the error reply, or b"".
    """

    entry_id: EntryId
    scope_id: ScopeId
    reason: str
    traceback: str = ""
    attempts: int = 0
    inbox: str = ""
    first: int = 0
    size_bytes: int = 0
    is_kept: bool = True
    headers: bytes = b""


Further = Commit | Emit | Fail | Hold | Bury
Operation = Answer | Further
COMMITS = (Answer, Commit)
"""What finishes an entry that was handled."""
FINISHING = (Answer, Commit, Bury)
"""What takes an entry out of its stream."""


def size_of(replies: Sequence[bytes], replies_bytes: int) -> int:
    """What an operation with these replies counts for in a call."""
    return OPERATION_BYTES + REPLY_BYTES * len(replies) + replies_bytes
