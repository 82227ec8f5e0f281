"""Answers: compares the reply stream of one scope with what was sent to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.suspects import DEATH
from wherry.model import Reply, id_key

from .application import WORDS
from .findings import Findings
from .journal import Journal, Sent

FORGOTTEN = "accepted, and forgotten by Redis at a failover"
MAX_ATTEMPTS = 3
"""Of the workers of a fault run."""

Probes = Counter[tuple[str, str]]
"""Scope and id of an entry -> how often it was run alone: each death at that is an attempt."""


@dataclass(slots=True, eq=False)
class Effects:
    """What the surviving answers say that a scope did.

    Attributes:
        done: numbers of the messages that took effect, in order.
        buried: ids of the entries whose answer says that they were given up.
    """

    done: list[int] = field(default_factory=lambda: [])
    buried: list[str] = field(default_factory=lambda: [])


class ScopeCheck:
    """Checks the answers of one scope."""

    def __init__(self, findings: Findings, journal: Journal, probes: Probes, name: str) -> None:
        self._findings = findings
        self._journal = journal
        self._probes = probes
        self._name = name
        self._sent = {one.entry_id: one for one in journal.sent.get(name, ())}
        self._unsure = {one.number: one for one in journal.unsure.get(name, ())}

    def check(self, replies: Sequence[Reply]) -> Effects:
        """Every accepted message has one answer, whole, in order, and with the right effect."""
        effects = Effects()
        by_cause: dict[str, list[Reply]] = {}
        before = "0-0"
        for reply in replies:
            by_cause.setdefault(reply.cause, []).append(reply)
            if _is_expiry(reply):
                continue  # unhandled, and told as soon as it is seen: it overtakes what waits
            if id_key(reply.cause) < id_key(before):
                self._blame("out of order", f"{reply.id} to {reply.cause} behind {before}")
            before = reply.cause
        for cause, parts in by_cause.items():
            sent = self._sent.get(cause) or self._find_unsure(parts)
            if sent is None:
                self._blame("doubled", f"an answer to {cause}, which was not sent")
            else:
                self._check_answer(cause, sent, parts, effects)
        if effects.done != sorted(set(effects.done)):
            self._blame("out of order", f"numbers {_disorder(effects.done)}")
        for sent in self._sent.values():
            if sent.entry_id not in by_cause:
                self._check_missing(sent)
        return effects

    def _find_unsure(self, parts: Iterable[Reply]) -> Sent | None:
        for part in parts:
            if part.message is not None:
                return self._unsure.get(part.message["n"])
        return None

    def _check_missing(self, sent: Sent) -> None:
        """Only Redis itself may have forgotten it: at a failover to a replica that never had it."""
        failover = next(
            (
                one
                for one in self._journal.failovers
                if one.may_have_lost(self._name, sent.entry_id)
            ),
            None,
        )
        if failover is None or (self._name, sent.entry_id) in failover.unfinished:
            self._blame("lost", f"{sent}")
        else:
            self._findings.figures[FORGOTTEN] += 1

    def _check_answer(
        self, cause: str, sent: Sent, parts: Sequence[Reply], effects: Effects
    ) -> None:
        *cut_off, final = self._runs(cause, parts)
        figures = self._findings.figures
        figures["answered"] += 1
        is_streamed = sent.kind in ("tell", "flush")
        if is_streamed:
            figures["streamed answers"] += 1
            figures["streamed answers begun anew"] += len(cut_off)
        elif cut_off:
            self._blame("doubled", f"{len(parts)} replies to {sent}")
        error = final[-1].error
        if error is not None:
            self._check_error(sent, final, error, effects)
            return
        if sent.kind == "poison":
            self._blame("wrong effect", f"{sent} was not buried")
        words = [one.message["word"] for one in final if one.message and "word" in one.message]
        done = [one.message for one in final if one.message and one.message["type"] == "done"]
        numbers = {one.message["n"] for one in parts if one.message}
        if words != (list(WORDS) if is_streamed else []) or len(done) != 1:
            self._blame("streamed answer not whole", f"{sent}: {words}, {done}")
            return
        ends = [one.count for one in final if one.is_end]
        if ends != ([len(WORDS) + 1] if sent.kind == "tell" else []) or numbers != {sent.number}:
            self._blame("wrong effect", f"{sent} was answered {final}")
        self._check_effect(cause, sent, done[0], effects)

    def _check_effect(
        self, cause: str, sent: Sent, done: Mapping[str, Any], effects: Effects
    ) -> None:
        effects.done.append(sent.number)
        count = None if self._name.startswith("bare") else len(effects.done)
        deaths = done["attempt"] - sent.fails - 1  # beyond those that failed by plan
        if done["count"] != count or not 0 <= deaths <= self._probes[self._name, cause]:
            self._blame("wrong effect", f"{sent} was answered {done}, expected count {count}")
        self._findings.figures["answered after a death at a probe"] += bool(deaths)
        self._findings.figures["answered after failed attempts"] += bool(sent.fails)

    def _check_error(
        self, sent: Sent, final: Sequence[Reply], error: str, effects: Effects
    ) -> None:
        if len(final) != 1:
            self._blame("wrong effect", f"{sent} was answered {final}")
        elif sent.kind == "late" and _is_expiry(final[0]):
            self._findings.figures["expired"] += 1
        elif sent.kind == "poison" and error.endswith(f"attempt {MAX_ATTEMPTS}"):
            self._findings.figures["buried"] += 1
            effects.buried.append(final[0].cause)
        elif died_of(error, sent, self._probes[self._name, final[0].cause]):
            self._findings.figures["buried after a death at a probe"] += 1
            effects.buried.append(final[0].cause)
        else:
            self._blame("wrong effect", f"{sent} was answered {error!r}")

    def _runs(self, cause: str, parts: Sequence[Reply]) -> list[list[Reply]]:
        """The answer, and before it what runs that were cut off had said; each marked."""
        runs: list[list[Reply]] = []
        for part in parts:
            if part.index == 0 or not runs:
                runs.append([])
            runs[-1].append(part)
        names = [run[0].attempt for run in runs]
        if len(set(names)) != len(names):
            self._blame("restart not marked", f"{cause}: {names}")
        for run in runs:
            indices = [one.index for one in run]
            if indices != list(range(len(run))) or len({one.attempt for one in run}) != 1:
                said = [(one.index, one.attempt) for one in run]
                self._blame("streamed answer not whole", f"{cause}: {said}")
        return runs

    def _blame(self, name: str, example: str) -> None:
        self._findings.blame(name, f"{self._name} {example}")


def died_of(error: str, sent: Sent, probes: int) -> bool:
    """Whether a message may have been given up with this error after deaths at its probes.

    At least one attempt failed so, the last, and as many as its planned failures left.
    """
    planned = MAX_ATTEMPTS if sent.kind == "poison" else sent.fails
    return error == DEATH and probes >= max(1, MAX_ATTEMPTS - planned)


def _is_expiry(reply: Reply) -> bool:
    return reply.error is not None and reply.error.startswith("Expired")


def _disorder(numbers: Sequence[int]) -> str:
    for index in range(1, len(numbers)):
        if numbers[index] <= numbers[index - 1]:
            return f"... {numbers[max(0, index - 3) : index + 3]} ..."
    return ""
