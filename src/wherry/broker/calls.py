"""Calls: many operations of a partition, and of several, in one command, and what is answered.

Everything that changes entries, replies, states and attempts goes through `encode_calls` and
``lua/commit.lua``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from ..errors import WherryError
from ..model import Partition, ScopeId, Token
from .commits import (
    Answers,
    Bury,
    Commit,
    Emit,
    Fail,
    Further,
    Hold,
    Outcome,
    StateChange,
    Step,
    count_of,
    weight_of,
)
from .link import Argument, Command
from .mapping import map_answer
from .scripts import Script
from .wire import Keys

MAX_OPERATIONS = 128
MAX_BYTES = 2**20
MOST_LOOSE = 8
"""So few answers of a partition cost less one by one than as a list of operations."""
_YOUNG_PART = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things that workers write are kept.

    Attributes:
        reply_length: replies of a scope, about.
        reply_ttl_ms: of a reply stream after its last write.
        state_ttl_ms: of a durable state after its last commit, 0 for ever.
    """

    reply_length: int
    reply_ttl_ms: int
    state_ttl_ms: int

    @property
    def young_s(self) -> float:
        """Seconds for which a key's time to live counts as young, and is not set again.

        To set it costs as much as to write a reply, and few users would tell 60 minutes from 56.
        """
        shortest_ms = min(self.reply_ttl_ms, self.state_ttl_ms or self.reply_ttl_ms)
        return shortest_ms / _YOUNG_PART / 1000


@dataclass(slots=True, eq=False)
class Call:
    """What one partition has in a call of the commit script.

    Attributes:
        partition: whose.
        token: fence; the call does nothing once the lease has another.
        steps: in order of effect.
        is_resent: it was sent before and its answer is unknown.
        emitted: number of the last emit that was acknowledged. A lease that knows of fewer has
            gone back in time, and the call is fenced.
        has_failures: failed attempts may be written down for the partition already.
        aging: scopes whose keys need a new time to live; None: all of them. Those of the others
            are given one if they are new.
    """

    partition: Partition
    token: Token
    steps: Sequence[Step]
    is_resent: bool = False
    emitted: int = 0
    has_failures: bool = True
    aging: Collection[ScopeId] | None = None


def split_point(steps: Iterable[Step]) -> tuple[int, int, int]:
    """How many of the first steps fit into one call, at least one; their operations and bytes."""
    fitting = count = size = 0
    for step in steps:
        more, step_bytes = weight_of(step)
        if fitting and (count + more > MAX_OPERATIONS or size + step_bytes > MAX_BYTES):
            break
        count += more
        size += step_bytes
        fitting += 1
    return fitting, count, size


def encode_calls(
    script: Script, keys: Keys, calls: Sequence[Call], retention: Retention
) -> Command:
    """The command that carries the calls of one partition, or of several that one server has."""
    arguments: list[Argument] = [
        0,
        retention.reply_length,
        retention.reply_ttl_ms,
        retention.state_ttl_ms,
    ]
    encoder, most_loose = _Encoder(keys), _most_loose(calls)
    arguments[0] = sum([encoder.encode(call, arguments, most_loose) for call in calls])
    return script.command(encoder.names, arguments)


def _most_loose(calls: Sequence[Call]) -> int:
    """How many answers of a partition may be a part each.

    A call that is alone in its command is one part: its error is that of the command.
    """
    return 1 if len(calls) == 1 else MOST_LOOSE


def _is_loose(call: Call, most: int) -> bool:
    """Whether each operation stands for itself: at most so many answers, of different scopes."""
    steps = call.steps
    if len(steps) > most or call.is_resent or call.has_failures or call.emitted:
        return False
    for step in steps:
        if type(step) is not Answers or len(step.arguments) != 2:
            return False
    if len(steps) == 1:
        return True
    return len(steps) == len({step.scope_id for step in steps}) > 0


class _Encoder:
    """Encodes calls; collects the keys that they name by number."""

    __slots__ = ("_keys", "_numbers", "_partition", "names")

    def __init__(self, keys: Keys) -> None:
        self.names: list[str] = []
        self._keys = keys
        self._numbers: dict[str, int] = {}
        self._partition: Partition

    def _number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            self.names.append(name)
            found = self._numbers[name] = len(self.names)
        return found

    def _out(self, scope: ScopeId) -> int:
        return self._number(self._keys.replies(self._partition, scope)) if scope else 0

    def _state(self, scope: ScopeId) -> int:
        return self._number(self._keys.state(self._partition, scope))

    def encode(self, call: Call, arguments: list[Argument], most_loose: int) -> int:
        """Append the arguments of a call; returns how many parts of the command they are."""
        if not _is_loose(call, most_loose):
            self._encode_many(call, arguments)
            return 1
        partition, aging, token = call.partition, call.aging, call.token
        entries, lease, _, _ = self._keys.of_owner(partition)
        for step in cast("Sequence[Answers]", call.steps):
            scope = step.scope_id
            self.names += (entries, lease, self._keys.replies(partition, scope))
            letter = "o" if aging is None or scope in aging else "O"
            arguments += (letter, token, *step.arguments)
        return len(call.steps)

    def _encode_many(self, call: Call, arguments: list[Argument]) -> None:
        names, replies, aging = self.names, self._keys.replies, call.aging
        partition = self._partition = call.partition
        has_failures, has_letters = call.has_failures, False
        arguments += ("m", call.token, "", call.emitted, 0, 0)
        first, begin = len(names), len(arguments)
        names += self._keys.of_owner(partition)
        for step in call.steps:
            if not isinstance(step, Answers):
                has_failures = has_failures or isinstance(step, Fail | Hold)
                has_letters = has_letters or (isinstance(step, Bury) and step.is_kept)
                if step.headers:
                    arguments += ("t", step.headers)
                arguments += self._encode(step)
                continue
            scope = step.scope_id
            is_aging = aging is None or scope in aging
            if step.has_states:
                letter = "s" if is_aging else "S"
                out, state = self._out(scope), self._state(scope)
                arguments += (letter, out, state, step.expected, len(step.entry_ids))
            else:
                # A key may be named several times: by a hot scope, seldom by any other.
                names.append(replies(partition, scope))
                arguments += ("a" if is_aging else "A", len(names), len(step.entry_ids))
            arguments += step.arguments
        arguments[begin - 4] = "r" * call.is_resent + "f" * has_failures + "d" * has_letters
        arguments[begin - 2 : begin] = len(arguments) - begin, len(names) - first

    def _encode(self, operation: Further) -> list[Argument]:
        scope, partition = operation.scope_id, self._partition
        if isinstance(operation, Fail):
            return ["f", operation.entry_id, scope, operation.row]
        out = self._out(scope)
        inbox = operation.inbox and self._number(self._keys.inbox(partition, operation.inbox))
        if isinstance(operation, Commit):
            arguments: list[Argument] = ["c", operation.entry_id, scope, out, inbox or 0]
            arguments += self._encode_state(operation.state, scope)
            arguments += (operation.end, operation.first, len(operation.replies))
            arguments += operation.replies
            return arguments
        if isinstance(operation, Emit):
            return [
                *("e", operation.number, operation.cause, scope, out, inbox or 0),
                *(operation.attempt, operation.first, len(operation.replies)),
                *operation.replies,
            ]
        if isinstance(operation, Hold):
            return [
                *("h", operation.entry_id, scope, operation.row, out, inbox or 0),
                *(operation.first, operation.attempt, operation.reason),
            ]
        return [
            *("b", operation.entry_id, scope, out, inbox or 0, operation.first),
            *(operation.reason, operation.traceback, operation.attempts),
            1 if operation.is_kept else 0,
        ]

    def _encode_state(self, state: StateChange | None, scope: ScopeId) -> Sequence[Argument]:
        if state is None:
            return (0,)
        action = "" if state.packed is None else ("s" if state.packed else "d")
        return (self._state(scope), action, state.expected, state.packed or b"")


def part_answers(answer: object, calls: Sequence[Call]) -> Sequence[object]:
    """What was answered for each of the calls that went in one command.

    An error that one partition alone has is a `WherryError` in its place; an answer that is one
    stands for all.
    """
    if len(calls) == 1:
        return (answer,)
    if isinstance(answer, Exception):
        return [answer] * len(calls)
    if isinstance(answer, int):
        return [count_of(call.steps) for call in calls]
    found: list[object] = []
    parts = iter(cast("list[object]", answer))
    for call in calls:
        loose = len(call.steps) if _is_loose(call, MOST_LOOSE) else 1
        found.append(_join([_error_of(one) or one for one in islice(parts, loose)]))
    return found


def _join(parts: Sequence[object]) -> object:
    """What was answered for a call, from the answers for its operations that went one by one."""
    if len(parts) == 1:
        return parts[0]
    whole = next((one for one in parts if isinstance(one, WherryError | bytes)), None)
    if whole is not None:
        return whole  # it failed, or was fenced
    results: list[object] = []
    for one in parts:
        results += cast("list[object]", one) if isinstance(one, list) else [one]
    return results


def _error_of(answer: object) -> WherryError | None:
    if not isinstance(answer, bytes) or not answer.startswith(b"!"):
        return None
    return map_answer(answer[1:].decode("utf-8", "replace").lstrip("-"), "this place")


def are_all_done(answer: object, count: int) -> bool:
    """Whether the answer to a call says that all of its ``count`` operations took effect."""
    return answer == count


def read_answers(answer: object) -> list[tuple[Outcome, str]] | None:
    """Outcome and reason of each operation, or None if the call was fenced."""
    if answer == b"FENCED":
        return None
    if isinstance(answer, int):
        return [_NUMBERED[1]] * answer
    return [_read_outcome(one) for one in cast("list[int | bytes]", answer)]


_NUMBERED = {1: (Outcome.DONE, ""), 0: (Outcome.ALREADY, ""), -1: (Outcome.VOID, "")}


def _read_outcome(answer: int | bytes) -> tuple[Outcome, str]:
    if isinstance(answer, int):
        return _NUMBERED[answer]
    text = answer.decode("utf-8", "replace")
    if text == "stale":
        return Outcome.STALE, ""
    return Outcome.BAD, text.removeprefix("bad:")
