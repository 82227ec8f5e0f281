"""Failures: errors of the application under test, kept for whoever looks for them."""

from __future__ import annotations

from dataclasses import dataclass

from ..hooks import Hooks


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that the application raised.

    Attributes:
        scope_id: whose instance raised it.
        error: with its traceback.
    """

    scope_id: str
    error: BaseException


class Failures(Hooks):
    """The hooks of workers under test: report as usual, and keep the errors.

    Attributes:
        kept: oldest first.
    """

    __slots__ = ("kept",)

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.kept: list[Failure] = []

    def failed(self, event: str, error: BaseException, **data: object) -> None:
        """Keep an error, and log it."""
        self.kept.append(Failure(str(data.get("scope", "")), error))
        super().failed(event, error, **data)

    def last_of(self, scope_id: str, since: int) -> BaseException | None:
        """The newest error of a scope, not counting the first ``since`` of all."""
        for failure in reversed(self.kept[since:]):
            if failure.scope_id == scope_id:
                return failure.error
        return None
