"""Batches: the commands of one call to a cluster, and their answers as nodes give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import StoreUnavailable, WherryError
from .link import Command
from .routing import Unit
from .slots import Place


class NodeAway(StoreUnavailable):
    """A node did not answer: what it was sent may have been carried out, or not."""


@dataclass(slots=True, eq=False)
class Batch:
    """Commands of one call.

    Attributes:
        commands: all of them.
        answers: of each; complete when nothing is to be done any more.
        everywhere: indexes of those that each node is asked.
        asked: where to go for this once (ASK), of units that were told so.
        tries: how often some had to be tried again.
    """

    commands: Sequence[Command]
    answers: list[Any]
    everywhere: list[int]
    asked: dict[Unit, Place] = field(default_factory=lambda: {})
    tries: int = 0

    def write(self, units: Sequence[Unit]) -> list[Command]:
        """What goes to one node."""
        wanted: list[Command] = []
        for unit in units:
            if unit in self.asked:
                wanted.append(("ASKING",))
            wanted += [self.commands[index] for index in unit.indexes]
        return wanted + [self.commands[index] for index in self.everywhere]

    def read(self, units: Sequence[Unit], found: Sequence[Any]) -> None:
        """Put the answers of one node where they belong."""
        at = 0
        for unit in units:
            at += unit in self.asked
            for index in unit.indexes:
                self.answers[index] = found[at]
                at += 1
        for index in self.everywhere:
            self.answers[index] = _least(self.answers[index], found[at])
            at += 1

    def fail(self, units: Sequence[Unit], error: WherryError) -> None:
        """A node did not answer."""
        for unit in units:
            for index in unit.indexes:
                self.answers[index] = error
        for index in self.everywhere:
            self.answers[index] = error


def _least(before: Any, found: Any) -> Any:
    """Of what nodes answer to one question: an error, or the smallest number."""
    if before is None or isinstance(found, Exception):
        return found
    return before if isinstance(before, Exception) else min(before, found)
