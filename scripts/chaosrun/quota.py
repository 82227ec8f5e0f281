"""Quota: how often each fault is wanted, is under way, was done, and counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet


class Quota:
    """The faults of one round.

    Attributes:
        wanted: kind -> how many that count.
        counted: kind -> how many were done whose victim owned unfinished entries.
        struck: kind -> how many were done.
    """

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self.wanted = {kind: count for kind, count in wanted.items() if count}
        self.counted: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()

    def begin(self, random_: random.Random, barred: AbstractSet[str]) -> str | None:
        """Choose a fault that is still wanted, by how many are left; None if there is none."""
        left = {
            kind: count - self.counted[kind] - self._under_way[kind]
            for kind, count in self.wanted.items()
            if kind not in barred
        }
        kinds = [kind for kind, count in left.items() if count > 0]
        if not kinds:
            return None
        kind = random_.choices(kinds, weights=[left[one] for one in kinds])[0]
        self._under_way[kind] += 1
        return kind

    def end(self, kind: str, *, is_done: bool, counts: bool) -> None:
        """A fault was done, or could not be."""
        self._under_way[kind] -= 1
        self.struck[kind] += is_done
        self.counted[kind] += counts

    def is_done(self) -> bool:
        """Whether nothing is wanted any more."""
        return all(self.counted[kind] >= count for kind, count in self.wanted.items())

    def share(self) -> float:
        """Part of all faults that is done, from 0 to 1."""
        total = sum(self.wanted.values())
        return sum(self.counted.values()) / total if total else 1.0
