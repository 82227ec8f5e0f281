"""Findings: what the checker counts, and what must not be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

WRONG = (
    "lost",
    "doubled",
    "out of order",
    "wrong effect",
    "wrong durable state",
    "streamed answer not whole",
    "restart not marked",
    "seen and vanished",
    "dead letter missing or wrong",
    "left behind",
)
"""Named in each report, also when there are none."""

MOST_EXAMPLES = 30


@dataclass(slots=True, eq=False)
class Findings:
    """What was found.

    Attributes:
        figures: what is as it should be, counted.
        wrong: what must not be, counted.
        examples: a few of what is wrong.
    """

    figures: Counter[str] = field(default_factory=lambda: Counter())
    wrong: Counter[str] = field(default_factory=lambda: Counter())
    examples: list[str] = field(default_factory=lambda: [])

    def blame(self, name: str, example: str) -> None:
        """Count something that must not be."""
        self.wrong[name] += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(f"{name}: {example}")

    def add(self, other: Findings) -> None:
        """Add those of another round."""
        self.figures.update(other.figures)
        self.wrong.update(other.wrong)
        self.examples += other.examples

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.wrong.values())
