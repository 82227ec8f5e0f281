"""The report: what was done, what was counted, and what is wrong."""

from __future__ import annotations

import json
from collections import Counter

from .findings import WRONG, Findings
from .rounds import Round
from .running import Outcome


class Report:
    """Adds up the rounds of one run."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rounds: list[dict[str, object]] = []
        self._findings = Findings()
        self._counted: Counter[str] = Counter()
        self._struck: Counter[str] = Counter()
        self._exits: Counter[int] = Counter()
        self._seconds = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return self._findings.is_good

    def add(self, round_: Round, outcome: Outcome) -> None:
        """Add one round."""
        self._findings.add(outcome.findings)
        self._counted.update(outcome.counted)
        self._struck.update(outcome.struck)
        self._exits.update(outcome.exits)
        self._seconds += outcome.seconds
        self._rounds.append(
            {
                "name": round_.name,
                "lease_s": round_.lease_s,
                "seed": round_.seed,
                "seconds": round(outcome.seconds, 1),
                "faults": dict(outcome.counted),
                "figures": dict(outcome.findings.figures),
                "wrong": {kind: count for kind, count in outcome.findings.wrong.items() if count},
            }
        )

    def text(self) -> str:
        """For people."""
        lines = [f"took {self._seconds:.0f} s", "", f"{'fault':<20} counted   in all"]
        for kind, count in self._counted.items():
            lines.append(f"{kind:<20} {count:>7,}  {self._struck[kind]:>7,}")
        exits = ", ".join(f"{count} times {code}" for code, count in sorted(self._exits.items()))
        lines += ["", f"exit codes of drained workers: {exits}", ""]
        lines += [f"{count:>12,}  {name}" for name, count in self._findings.figures.items()]
        lines.append("")
        lines += [f"{count:>12,}  {name}" for name, count in self._wrong().items()]
        lines += [f"  {example}" for example in self._findings.examples]
        lines.append("nothing is wrong" if self.is_good else "SOMETHING IS WRONG")
        return "\n".join(lines)

    def json(self) -> str:
        """For programs."""
        whole = {
            "seed": self._seed,
            "seconds": round(self._seconds, 1),
            "faults": dict(self._counted),
            "faults in all": dict(self._struck),
            "exits": dict(self._exits),
            "figures": dict(self._findings.figures),
            "wrong": self._wrong(),
            "examples": self._findings.examples,
            "rounds": self._rounds,
        }
        return json.dumps(whole, indent=1)

    def _wrong(self) -> dict[str, int]:
        return {**dict.fromkeys(WRONG, 0), **self._findings.wrong}
