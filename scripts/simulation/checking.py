"""Checker: compares what Redis holds in the end with what was sent; knows nothing of the engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from .application import WORDS, Application, chain
from .server import Server

_DOCUMENTED = re.compile(
    r"wherry-clock|\{sim\}:(meta|members|joined|member:.+)"
    r"|\{sim:\d+\}:(in|lease|attempts|dead|out:.+|scope:.+|sent:.+)"
)
_LASTING = re.compile(r"wherry-clock|\{sim\}:meta|\{sim:\d+\}:(in|lease|attempts|dead|scope:.+)")


@dataclass
class Accepted:
    """A message that Redis has taken.

    Attributes:
        entry_id: of its entry.
        scope_id: whom it is for.
        message: as it was sent.
        has_mark: the end was to be marked.
        expires: it may have expired instead of being handled.
    """

    entry_id: str
    scope_id: str
    message: dict[str, Any]
    has_mark: bool
    expires: bool

    @property
    def name(self) -> str:
        """Scope and id; ids are unique within their partition only."""
        return f"{self.scope_id} {self.entry_id}"


@dataclass
class _Cause:
    """What a reply stream says of one entry.

    Attributes:
        replies: of its last run.
        attempt: of that run.
        attempts: of all runs.
        end: number of replies by its end mark.
        error: text of its error reply.
    """

    replies: list[dict[str, Any]] = field(default_factory=list)
    attempt: str = ""
    attempts: list[str] = field(default_factory=list)
    end: int | None = None
    error: str | None = None


class Checker:
    """Looks at one finished story.

    Attributes:
        went_back: Redis lost data on the way.
        may_reorder: and no worker could know it, as INFO is forbidden: then what was in hand may
            come before what is undone, but still once, whole, and on the state of its turn.
    """

    went_back = False
    may_reorder = False

    def __init__(
        self,
        server: Server,
        application: Application,
        max_attempts: int,
        find: Callable[[str], None],
    ) -> None:
        self._server = server
        self._application = application
        self._max_attempts = max_attempts
        self._find = find

    def check(
        self, accepted: list[Accepted], partition_of: Callable[[str], int], count: int
    ) -> None:
        """Report everything that is not as it must be."""
        by_scope: dict[str, list[Accepted]] = {}
        for one in accepted:
            by_scope.setdefault(one.scope_id, []).append(one)
        letters: set[str] = set()
        for partition in range(count):
            self._check_rest(partition)
            letters |= self._dead(partition)
        for scope_id, sent in by_scope.items():
            self._check_scope(scope_id, partition_of(scope_id), sent, letters)
        unknown = letters - {one.name for one in accepted}
        if unknown:
            self._find(f"dead letters of unknown entries: {sorted(unknown)}")
        self._check_keys(set(by_scope))

    def check_released(self, count: int) -> None:
        """Report leases that workers have kept though they ended in good order."""
        for partition in range(count):
            owner = self._server.call("HGET", f"{{sim:{partition}}}:lease", "owner")
            if owner:
                self._find(f"partition {partition} was not released by {owner.decode()}")

    def _check_rest(self, partition: int) -> None:
        left = self._server.call("XLEN", f"{{sim:{partition}}}:in")
        if left:
            self._find(f"lost or stuck: {left} entries are left in partition {partition}")
        rows = self._server.call("HGETALL", f"{{sim:{partition}}}:attempts")
        if rows:
            self._find(f"attempts of finished entries are left: {rows[::2]}")

    def _dead(self, partition: int) -> set[str]:
        letters: set[str] = set()
        for _, flat in self._server.call("XRANGE", f"{{sim:{partition}}}:dead", "-", "+"):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            entry_id = f"{fields[b's'].decode()} {fields[b'id'].decode()}"
            attempts = int(fields[b"attempts"])
            if entry_id in letters:
                self._find(f"two dead letters of {entry_id}")
            letters.add(entry_id)
            if attempts != self._max_attempts:
                self._find(
                    f"dead letter {entry_id} after {attempts} attempts: {fields[b'error']!r}"
                )
        return letters

    def _check_scope(
        self, scope_id: str, partition: int, sent: list[Accepted], letters: set[str]
    ) -> None:
        causes, order = self._read(f"{{sim:{partition}}}:out:{scope_id}", scope_id)
        expected = [one.entry_id for one in sent if one.entry_id in order or not one.expires]
        for entry_id in [one for one in order if one not in set(expected)]:
            self._find(f"{scope_id}: effects of {entry_id}, which is not in this history")
        if self.may_reorder and sorted(order) == sorted(expected):
            places = {entry_id: place for place, entry_id in enumerate(order)}
            sent = sorted(sent, key=lambda one: places.get(one.entry_id, -1))
            expected = order
        if order != expected:
            missing = [one for one in expected if one not in causes]
            if missing:
                self._find(f"{scope_id}: lost: no effect of {missing}")
            elif sorted(order) == sorted(expected):
                self._find(f"{scope_id}: out of order: {order} instead of {expected}")
        count = digest = 0
        last = ""
        for one in sent:
            cause = causes.get(one.entry_id)
            if cause is None:
                continue
            if cause.error is not None:
                self._check_error(one, cause, letters)
                continue
            count, digest, last = count + 1, chain(digest, one.message["n"]), one.entry_id
            self._check_answer(one, cause, count, digest)
            if one.message["fails"] >= self._max_attempts:
                self._find(f"{scope_id}: {one.entry_id} was to fail for ever and did not")
            if one.name in letters:
                self._find(f"{scope_id}: {one.entry_id} was answered and is a dead letter")
        self._check_state(scope_id, partition, {"count": count, "digest": digest}, last)

    def _check_error(self, one: Accepted, cause: _Cause, letters: set[str]) -> None:
        where = f"{one.scope_id} {one.entry_id}"
        if (cause.error or "").startswith("Expired"):
            if not one.expires:
                self._find(f"{where}: expired, and had no expiry")
        elif one.message["fails"] < self._max_attempts:
            self._find(f"{where}: buried, which it did not deserve: {cause.error}")
        elif one.name not in letters:
            self._find(f"{where}: was given up, and is no dead letter")
        elif self._application.raised[one.name] < self._max_attempts:
            self._find(f"{where}: attempts over-counted: buried after fewer than it had")

    def _check_answer(self, one: Accepted, cause: _Cause, count: int, digest: int) -> None:
        where = f"{one.scope_id} {one.entry_id}"
        n = one.message["n"]
        wanted: list[dict[str, Any]] = []
        if one.message["type"] == "tell":
            wanted = [{"type": "word", "n": n, "word": word} for word in range(WORDS)]
        wanted.append({"type": "done", "n": n, "count": count, "digest": digest})
        if cause.replies != wanted:
            self._find(f"{where}: wrong effect: {cause.replies} instead of {wanted}")
        if one.has_mark and cause.end != len(wanted):
            self._find(f"{where}: end mark {cause.end} after {len(wanted)} replies")
        if not one.has_mark and cause.end is not None:
            self._find(f"{where}: an end mark that nobody asked for")

    def _check_state(
        self, scope_id: str, partition: int, wanted: dict[str, int], last: str
    ) -> None:
        kept = self._server.call("HGETALL", f"{{sim:{partition}}}:scope:{scope_id}")
        fields = dict(zip(kept[::2], kept[1::2], strict=True))
        state = msgpack.unpackb(fields[b"state"]) if fields else {"count": 0, "digest": 0}
        if state != wanted:
            self._find(f"{scope_id}: wrong durable state: {state} instead of {wanted}")
        elif fields and fields[b"v"].decode() != last:
            self._find(f"{scope_id}: state of version {fields[b'v']!r} instead of {last}")

    def _read(self, key: str, scope_id: str) -> tuple[dict[str, _Cause], list[str]]:
        """Causes of a reply stream, and the order in which their effects came."""
        causes: dict[str, _Cause] = {}
        order: list[str] = []
        greetings: set[int] = set()
        for _, flat in self._server.call("XRANGE", key, "-", "+"):
            fields = {
                name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)
            }
            cause_id = fields.get("i", b"").decode()
            message = msgpack.unpackb(fields["m"]) if "m" in fields else {}
            if not cause_id:
                if message["number"] in greetings:
                    self._find(f"{scope_id}: doubled: sent outside any message {message}")
                greetings.add(message["number"])
                continue
            if cause_id not in causes:
                causes[cause_id] = _Cause()
                if not fields.get("e", b"").startswith(b"Expired"):
                    # What expires has no effect, and so no place in the order.
                    order.append(cause_id)
            elif order and order[-1] != cause_id and self.went_back and fields["n"] == b"0":
                # What was streamed by who did not know yet that an earlier message is undone: the
                # answer begins anew behind that one's.
                order.remove(cause_id)
                order.append(cause_id)
            elif order and order[-1] != cause_id:
                self._find(f"{scope_id}: {cause_id} goes on after {order[-1]} began")
            self._add(scope_id, cause_id, causes[cause_id], fields, message)
        return causes, order

    def _add(
        self,
        scope_id: str,
        cause_id: str,
        cause: _Cause,
        fields: dict[str, bytes],
        message: dict[str, Any],
    ) -> None:
        where = f"{scope_id} {cause_id}"
        if cause.error is not None or cause.end is not None:
            self._find(f"{where}: doubled: something comes after its end")
        index, attempt = int(fields["n"]), fields.get("a", b"").decode()
        if "e" in fields:
            cause.error = fields["e"].decode()
            return
        if attempt and attempt != cause.attempt and index == 0:
            if attempt in cause.attempts:
                self._find(f"{where}: two runs called {attempt}")
            cause.attempts.append(attempt)
            cause.attempt, cause.replies = attempt, []
        elif attempt and attempt != cause.attempt and cause.replies and "z" not in fields:
            self._find(f"{where}: run {attempt} goes on where {cause.attempt} stopped")
        if index != len(cause.replies):
            self._find(f"{where}: reply {index} where {len(cause.replies)} was due")
        if message:
            cause.replies.append(message)
        if "z" in fields:
            cause.end = int(fields["z"])

    def _check_keys(self, scopes: set[str]) -> None:
        for key in self._server.call("KEYS", "*"):
            name = key.decode()
            if not _DOCUMENTED.fullmatch(name):
                self._find(f"undocumented key {name}")
            elif self._server.call("PTTL", key) == -1 and not _LASTING.fullmatch(name):
                self._find(f"temporary key without expiry: {name}")
            elif ":scope:" in name and name.rpartition(":")[2] not in scopes:
                self._find(f"state of a scope that got nothing in this history: {name}")
