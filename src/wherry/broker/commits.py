"""Operations of an owner on its partition, and what may become of them.

A call carries many of them, see `wherry.broker.calls`; their order is the order of their effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple, cast

from ..model import EntryId, ScopeId

OPERATION_BYTES = 128
REPLY_BYTES = 512
"""What an operation, and each of its replies, counts for beside its own bytes.

So `MAX_BYTES` bounds the number of replies of a call, too: about 2,000, however short they are.
"""
ANSWER_BYTES = OPERATION_BYTES + REPLY_BYTES
MOST_ARGUMENTS = 64
"""So many arguments of answers are kept together: a call takes all of them or none."""
LARGE_BYTES = 8_192
"""An answer that is larger goes alone; the others together stay far below `MAX_BYTES`."""


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
        state: what the state becomes, not empty; None if it stays.
    """

    entry_id: EntryId
    scope_id: ScopeId
    reply: bytes
    state: StateChange | None = None


@dataclass(slots=True, eq=False)
class Answers:
    """Answers of one scope that follow one another; each state is built on the one before it.

    They are kept as they are sent: nothing is made for each of them.

    Attributes:
        scope_id: whose.
        has_states: each changes the state, or none does.
        expected: version of the state that the first was built on, see `StateChange`.
        entry_ids: the entries that they finish.
        arguments: entry id, packed reply and, with states, packed state of each.
        size_bytes: what they count for in a call.
    """

    scope_id: ScopeId
    has_states: bool = False
    expected: str = ""
    entry_ids: list[EntryId] = field(default_factory=lambda: [])
    arguments: list[str | bytes] = field(default_factory=lambda: [])
    size_bytes: int = 0

    def add(self, entry_id: EntryId, reply: bytes, state: bytes | None, size_bytes: int) -> None:
        """Append an answer; reply and state have ``size_bytes`` together."""
        self.entry_ids.append(entry_id)
        self.arguments += (entry_id, reply) if state is None else (entry_id, reply, state)
        self.size_bytes += ANSWER_BYTES + size_bytes

    def is_before(self, state: StateChange | None) -> bool:
        """Whether an answer with such a state, or with none, may follow."""
        if state is None:
            return not self.has_states
        return self.has_states and self.entry_ids[-1] == state.expected

    def each(self) -> list[Answer]:
        """One by one."""
        ids, replies = self.entry_ids, cast("list[bytes]", self.arguments)
        if not self.has_states:
            return [
                Answer(entry_id, self.scope_id, reply)
                for entry_id, reply in zip(ids, replies[1::2], strict=True)
            ]
        befores = [self.expected, *ids[:-1]]
        parts = zip(ids, replies[1::3], befores, replies[2::3], strict=True)
        return [
            Answer(entry_id, self.scope_id, reply, StateChange(before, packed))
            for entry_id, reply, before, packed in parts
        ]


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
"""What becomes of it is told by itself."""
Step = Answers | Further
"""What a call is made of."""
COMMITS = (Answer, Commit)
"""What finishes an entry that was handled."""
FINISHING = (Answer, Commit, Bury)
"""What takes an entry out of its stream."""


def each_of(step: Step) -> Sequence[Operation]:
    """The operations of a step."""
    return step.each() if isinstance(step, Answers) else (step,)


def count_of(steps: Iterable[Step]) -> int:
    """How many operations there are in steps."""
    return sum([len(step.entry_ids) if isinstance(step, Answers) else 1 for step in steps])


def weight_of(step: Step) -> tuple[int, int]:
    """How many operations a step is, and what they count for in a call, in bytes."""
    return len(step.entry_ids) if isinstance(step, Answers) else 1, step.size_bytes


def size_of(replies: Sequence[bytes], replies_bytes: int) -> int:
    """What an operation with these replies counts for in a call."""
    return OPERATION_BYTES + REPLY_BYTES * len(replies) + replies_bytes
