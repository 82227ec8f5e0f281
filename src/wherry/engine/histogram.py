"""Histogram: counts of values by size, in plain numbers, cheap to feed and to read at any time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS: tuple[float, ...] = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Upper bounds for times, from half a millisecond to five minutes."""
COUNTS: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Upper bounds for how many operations a call carries."""


class Histogram:
    """Values seen so far, counted between bounds.

    Fed by one thread and read by others: a reader may see the last value in one number and not yet
    in the other, which the next look mends.

    Attributes:
        bounds: upper bounds of the buckets but the last, which has none; ascending.
        counts: values in each bucket, one more than bounds.
        total: sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Start empty."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Count a value, once for each of those that it stands for."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight

    def cumulative(self) -> list[int]:
        """How many values are at most each bound, and last how many there are."""
        sums: list[int] = []
        running = 0
        for count in list(self.counts):
            running += count
            sums.append(running)
        return sums


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """About the value below which a share of all lies, as Prometheus' histogram_quantile has it.

    Args:
        bounds: upper bounds, as in `Histogram`.
        counts: in each bucket, one more than bounds; the last bucket counts as its lower bound.
        share: between 0 and 1.

    Returns:
        None if there are no values.
    """
    wanted = share * sum(counts)
    if wanted <= 0:
        return None
    running, below = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and running + count >= wanted:
            return below + (bound - below) * (wanted - running) / count
        running += count
        below = bound
    return below
