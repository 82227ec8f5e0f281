"""What the scripts do to one partition, in plain Python: the specification they are held to.

The data are a dict, as Redis' are: key -> stream (list of records), hash (dict) or string (str);
anything else is a value of another type. Nothing here knows a clock: a lease is `LIVE` or has run
out, and a key lives for so many hours after its last write, or for ever.

To add an operation of the commit script: a method, and its line in `Model._apply`. To add a
script: a method. `machine.py` then needs a rule that calls both sides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tests.broker.tenure import ALREADY, DONE, STALE, VOID, ZERO
from wherry.broker.calls import Retention
from wherry.broker.commits import Bury, Commit, Emit, Fail, Hold, Outcome, StateChange
from wherry.broker.leases import Claimed
from wherry.broker.wire import Keys, Meta, outgoing_fields
from wherry.model import ORIGIN, EntryId, Outgoing, ScopeId, Token

HOUR_MS = 3_600_000
LEASE_MS = HOUR_MS
LIVE, RUN_OUT, RELEASED = "an hour from now", "1", "0"
"""What a lease's expiry can be."""
NOW, LONG_AGO = "now", "1"
"""What another moment can be."""
ID = "*"
"""Field under which a record of the input stream shows its id; the ids of other streams are not
looked at."""
LETTER = ("id", "error", "traceback", "attempts", "when")
"""The fields that a dead letter has beside those of its entry."""
ELSE = frozenset({"else"})
"""A value of a type that no key of a partition has."""

Record = dict[str, str]
Value = list[Record] | dict[str, str] | str | frozenset[str]
Answer = tuple[Outcome, str]
Replying = Commit | Emit | Hold | Bury
Operation = Replying | Fail
"""Those of `wherry.broker.commits`, but `Answer`: the scripts' short form of a `Commit`."""

K = TypeVar("K")


class WrongType(Exception):
    """A script met a key that was overwritten by something else; it must have changed nothing."""


class Model:
    """One partition.

    Attributes:
        data: all its keys.
        hours: key -> hours it lives after its last write; others live for ever.
    """

    def __init__(self, keys: Keys, meta: Meta) -> None:
        self.keys = keys
        self.meta = meta
        self.data: dict[str, Value] = {}
        self.hours: dict[str, int] = {}
        self._rows_before: dict[str, str] = {}
        self._is_young = False

    # Leases.

    def claim(self, worker: str, nonce: str) -> Claimed | None:
        """Take the partition if its lease is free, has run out, or is this worker's own.

        Also where its stream is damaged: its owner notices when it reads.
        """
        lease = self.lease()
        owner = lease.get("owner", "")
        if owner not in ("", worker) and lease["expiry"] == LIVE:
            return None
        entries = self.found(self.keys.entries(ZERO), list[Record])
        epoch = str(int(lease.get("epoch", "0")) + 1)
        is_unclean = owner not in ("", worker)
        before = lease.get("unclean")
        self.data[self.keys.lease(ZERO)] = {
            "owner": worker,
            "token": f"{epoch}:{nonce}",
            "epoch": epoch,
            "ttl": str(LEASE_MS),
            "expiry": LIVE,
            "emit": "0",
            "generation": self.meta.generation,
            "partitions": str(self.meta.partitions),
        }
        unclean = NOW if is_unclean else before
        if unclean:
            self.lease()["unclean"] = unclean
        return Claimed(
            partition=ZERO,
            token=Token(f"{epoch}:{nonce}"),
            is_unclean=is_unclean,
            is_again=is_unclean and before == NOW,
            last_id=EntryId(entries[-1][ID]) if entries else ORIGIN,
            previous=Token(lease.get("token", "") if is_unclean else ""),
        )

    def renew(self, token: Token) -> bool:
        """Lengthen the lease, even if it ran out, as long as the token is still its own."""
        lease = self.data.get(self.keys.lease(ZERO))
        if not isinstance(lease, dict) or lease.get("token") != token:
            return False
        lease["expiry"] = LIVE
        return True

    def release(self, token: Token) -> bool:
        """Free the lease if the token is still its own; the epoch stays."""
        lease = self.lease()
        if lease.get("token") != token:
            return False
        lease |= {"owner": "", "expiry": RELEASED}
        del lease["token"]
        return True

    # Sending.

    def send(
        self, batch: Sequence[Outgoing], backlog: int, hours: int, new_ids: Iterator[str]
    ) -> list[str]:
        """Append what was not sent before, in order, as long as there is room."""
        entries = self.entries()
        ids = [one.message_id for one in batch if one.message_id]
        known = {one: self._read(self.keys.sent(ZERO, one), str) for one in ids}
        answers: list[str] = []
        for outgoing in batch:
            first = known.get(outgoing.message_id)
            if first:
                answers.append(f"={first}")
            elif len(entries) >= backlog:
                answers.append("")
            else:
                answers.append(next(new_ids, "none"))
                self._append(self.keys.entries(ZERO), {ID: answers[-1]} | _texts(outgoing))
                entries = self.entries()
                if outgoing.message_id:
                    known[outgoing.message_id] = answers[-1]
                    self._write(self.keys.sent(ZERO, outgoing.message_id), answers[-1], hours)
        return answers

    # What operators do.

    def replay(
        self, places: Sequence[int | None], backlog: int, new_ids: Iterator[str]
    ) -> list[str | None]:
        """Move the letters at these places (None: there is none) behind what waits."""
        self.entries()
        letters: list[Record] = self._read(self.keys.dead(ZERO), list) or []
        answers: list[str | None] = []
        moved: set[int] = set()
        for place in places:
            if place is None or place in moved:
                answers.append("")
            elif len(self.entries()) >= backlog:
                answers.append(None)
            else:
                moved.add(place)
                letter = letters[place]
                fields = {name: letter[name] for name in letter if name not in {*LETTER, "r", "x"}}
                new = {ID: next(new_ids, "none"), "o": letter.get("o", letter["id"])}
                answers.append(new[ID])
                self._append(self.keys.entries(ZERO), fields | new)
        if moved:
            left = [one for place, one in enumerate(letters) if place not in moved]
            self.data[self.keys.dead(ZERO)] = left
        return answers

    def unhold(self, entry_id: str, row: str, *, drops: bool) -> bool:
        """Forget a row that is still the one that was seen, and maybe its entry."""
        if (self._read(self.keys.attempts(ZERO), dict) or {}).get(entry_id) != row:
            return False
        if drops:
            self.data[self.keys.entries(ZERO)] = self._without(entry_id)
        self._forget_row(entry_id)
        return True

    # Committing.

    def call(
        self,
        token: Token,
        operations: Sequence[Operation],
        kept: Retention,
        *,
        is_resent: bool,
        is_young: bool,
    ) -> list[Answer] | None:
        """One answer for each operation, or None: fenced, and nothing was written.

        With ``is_young`` what short commits write to has got its time to live just before.
        """
        self._is_young = is_young
        if self.lease().get("token") != token:
            return None
        if operations:
            self._read(self.keys.entries(ZERO), list)
        self._read(self.keys.attempts(ZERO), dict)
        if any(isinstance(one, Bury) and one.is_kept for one in operations):
            self._read(self.keys.dead(ZERO), list)
        self._rows_before = dict(self.rows())
        answers: list[Answer] = []
        void: set[ScopeId] = set()
        for operation in operations:
            if isinstance(operation, Emit) and operation.number <= int(self.lease()["emit"]):
                answer = ALREADY
            elif operation.scope_id in void:
                answer = VOID
            elif isinstance(operation, Emit) and operation.cause and not self.has(operation.cause):
                answer = VOID
                void.add(operation.scope_id)
            else:
                answer = self._apply(operation, kept)
            lost_its_entry = isinstance(operation, Commit) and answer == ALREADY and not is_resent
            if answer[0] in (Outcome.STALE, Outcome.BAD) or lost_its_entry:
                void.add(operation.scope_id)
            answers.append(answer)
        return answers

    def _apply(self, operation: Operation, kept: Retention) -> Answer:
        if isinstance(operation, Emit):
            return self._emit(operation, kept)
        if not self.has(operation.entry_id):
            return ALREADY
        if isinstance(operation, Commit):
            return self._commit(operation, kept)
        if isinstance(operation, Fail):
            self._write_row(operation)
            return DONE
        if isinstance(operation, Hold):
            return self._hold(operation, kept)
        return self._bury(operation, kept)

    def _write_row(self, operation: Fail | Hold) -> None:
        row = {str(operation.entry_id): _text(operation.row)}
        self._write(self.keys.attempts(ZERO), self.rows() | row)

    def _commit(self, commit: Commit, kept: Retention) -> Answer:
        problem = self._state_problem(commit) or self._reply_problem(commit)
        if problem:
            return problem
        self._finish(commit.entry_id)
        total = commit.first + len(commit.replies)
        mark = {"z": str(total), "a": commit.end}
        about = {"i": commit.entry_id, "s": commit.scope_id}
        for index, message in enumerate(commit.replies, commit.first):
            is_last = index == total - 1
            record = about | {"m": _text(message), "n": str(index)}
            self._reply(commit, record | (mark if commit.end and is_last else {}), kept)
        if commit.end and not commit.replies:
            self._reply(commit, about | {"n": str(total)} | mark, kept)
        if commit.state is not None:
            self._change_state(commit, commit.state, kept)
        return DONE

    def _change_state(self, commit: Commit, change: StateChange, kept: Retention) -> None:
        key = self.keys.state(ZERO, commit.scope_id)
        was_there = key in self.data
        if change.packed == b"":
            self.remove(key)
            return
        if change.packed is not None:
            self.data[key] = {"state": _text(change.packed), "v": commit.entry_id}
        if key in self.data:  # its time begins anew, also if it stays as it is
            keeps = self._keeps_time(commit) and was_there
            hours = self.hours.get(key, 0) if keeps else kept.state_ttl_ms // HOUR_MS
            self._write(key, self.data[key], hours)

    def _keeps_time(self, operation: Replying) -> bool:
        return self._is_young and isinstance(operation, Commit) and is_short(operation)

    def _emit(self, emit: Emit, kept: Retention) -> Answer:
        problem = self._reply_problem(emit)
        if problem:
            return problem
        self.lease()["emit"] = str(emit.number)
        about = {"s": emit.scope_id}
        about |= {"i": emit.cause} if emit.cause else {}
        about |= {"a": emit.attempt} if emit.attempt else {}
        for index, message in enumerate(emit.replies, emit.first):
            self._reply(emit, about | {"m": _text(message), "n": str(index)}, kept)
        return DONE

    def _hold(self, hold: Hold, kept: Retention) -> Answer:
        """Told once: not again if the row stood there when the call came."""
        was_held = self._rows_before.get(hold.entry_id) == _text(hold.row)
        self._write_row(hold)
        if was_held:
            return ALREADY
        told = {"i": hold.entry_id, "n": str(hold.first), "s": hold.scope_id}
        self._reply(hold, told | {"a": hold.attempt, "e": hold.reason}, kept)
        return DONE

    def _bury(self, bury: Bury, kept: Retention) -> Answer:
        (entry,) = [entry for entry in self.entries() if entry[ID] == bury.entry_id]
        self._finish(bury.entry_id)
        if bury.is_kept:
            own = (bury.entry_id, bury.reason, bury.traceback, str(bury.attempts), NOW)
            letter = dict(zip(LETTER, own, strict=True))
            fields = {name: value for name, value in entry.items() if name != ID}
            self._append(self.keys.dead(ZERO), letter | fields)
        told = {"i": bury.entry_id, "n": str(bury.first), "s": bury.scope_id, "e": bury.reason}
        self._reply(bury, told, kept)
        return DONE

    def _finish(self, entry_id: EntryId) -> None:
        self.data[self.keys.entries(ZERO)] = self._without(entry_id)
        self._forget_row(entry_id)

    def _without(self, entry_id: str) -> list[Record]:
        return [one for one in self.entries() if one[ID] != entry_id]

    def _forget_row(self, entry_id: str) -> None:
        rows = self.rows()
        rows.pop(entry_id, None)
        if not rows:
            self.remove(self.keys.attempts(ZERO))

    def _state_problem(self, commit: Commit) -> Answer | None:
        if commit.state is None:
            return None
        key = self.keys.state(ZERO, commit.scope_id)
        state = self.data.get(key, {})
        if not isinstance(state, dict):
            return Outcome.BAD, f"state key {key} is no hash"
        return STALE if state.get("v", "") != commit.state.expected else None

    def _reply_problem(self, operation: Commit | Emit) -> Answer | None:
        for name, key in self._reply_keys(operation):
            if not isinstance(self.data.get(key, []), list):
                return Outcome.BAD, f"{name} key {key} is no stream"
        return None

    def _reply(self, operation: Replying, record: Record, kept: Retention) -> None:
        """Append to the reply stream and the inbox; what is no stream is left alone."""
        if operation.headers:
            record = record | {"h": _text(operation.headers)}
        for _, key in self._reply_keys(operation):
            if isinstance(self.data.get(key, []), list):
                keeps = self._keeps_time(operation) and key in self.data
                hours = self.hours.get(key, 0) if keeps else kept.reply_ttl_ms // HOUR_MS
                self._append(key, record, hours)

    def _reply_keys(self, operation: Replying) -> Iterator[tuple[str, str]]:
        if operation.scope_id:
            yield "reply", self.keys.replies(ZERO, operation.scope_id)
        if operation.inbox:
            yield "inbox", self.keys.inbox(ZERO, operation.inbox)

    # What is there.

    def lease(self) -> dict[str, str]:
        return self._read(self.keys.lease(ZERO), dict) or {}

    def entries(self) -> list[Record]:
        return self._read(self.keys.entries(ZERO), list) or []

    def rows(self) -> dict[str, str]:
        return self.found(self.keys.attempts(ZERO), dict[str, str])

    def has(self, entry_id: str) -> bool:
        return any(one[ID] == entry_id for one in self.entries())

    def remove(self, key: str) -> None:
        self.data.pop(key, None)
        self.hours.pop(key, None)

    def copy(self) -> Model:
        other = Model(self.keys, self.meta)
        other.data = {key: copy.copy(value) for key, value in self.data.items()}
        other.hours = dict(self.hours)
        return other

    def found(self, key: str, kind: Callable[[], K]) -> K:
        """What a key holds; empty where nothing is, or something else."""
        value = self.data.get(key)
        return value if isinstance(value, type(empty := kind())) else empty

    def _read(self, key: str, kind: type[K]) -> K | None:
        value = self.data.get(key)
        if value is not None and not isinstance(value, kind):
            raise WrongType(key)
        return value

    def _append(self, key: str, record: Record, hours: int = 0) -> None:
        self._write(key, [*(self._read(key, list) or ()), record], hours)

    def _write(self, key: str, value: Value, hours: int = 0) -> None:
        self.remove(key)
        self.data[key] = value
        if hours:
            self.hours[key] = hours


def is_short(commit: Commit) -> bool:
    """Whether it is one reply, and maybe a new state, and nothing else."""
    further = commit.inbox or commit.end or commit.first
    return (
        len(commit.replies) == 1 and not further and (not commit.state or bool(commit.state.packed))
    )


def _texts(outgoing: Outgoing) -> Record:
    flat = [_text(one) for one in outgoing_fields(outgoing)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
