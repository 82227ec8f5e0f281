"""Results: what became of the operations of a call of which not all took effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..broker.commits import Operation, Outcome, each_of
from .holding import Holding, Track
from .queues import Flight


class Result(NamedTuple):
    """What became of one operation.

    Attributes:
        operation: what was put in.
        track: of its scope.
        outcome: what the script said.
        reason: why, for `Outcome.BAD`.
    """

    operation: Operation
    track: Track
    outcome: Outcome
    reason: str


class Desk(Protocol):
    """Takes the answers; see `wherry.runtime.settlement.Settlement`."""

    def settle_done(self, flights: Sequence[Flight]) -> None:
        """All operations of these took effect."""
        ...

    def settle(self, holding: Holding, results: Sequence[Result] | None) -> None:
        """The results of a call, in order, or None when the holding is fenced."""
        ...


def results_of(flight: Flight, answers: Sequence[tuple[Outcome, str]]) -> list[Result]:
    """The result of each operation, from the answers to them."""
    operations = [(one, track) for step, track in flight.sent for one in each_of(step)]
    return [
        Result(operation, track, _own_resend(outcome, flight), reason)
        for (operation, track), (outcome, reason) in zip(operations, answers, strict=True)
    ]


def _own_resend(outcome: Outcome, flight: Flight) -> Outcome:
    """What was done already when we sent it again, we did ourselves the first time."""
    return Outcome.DONE if flight.is_resent and outcome is Outcome.ALREADY else outcome
