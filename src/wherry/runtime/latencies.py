"""Latencies: how long messages waited and were handled lately, in four numbers at each beat.

Taken from what the `Meter` counts anyhow, so that a message costs nothing more for it, and only
where somebody has chosen to measure.
"""

from __future__ import annotations

from collections import deque

from ..engine.histogram import Histogram, quantile
from .meter import Meter

MEASURED = ("queueing", "handling")
SHARES = {"p50": 0.5, "p99": 0.99}
BEATS = 5
"""Of so many beats: where few messages come, one alone would seldom have any."""


class Latencies:
    """Quantiles of what was measured in the last beats."""

    __slots__ = ("_before", "_histograms")

    def __init__(self, meter: Meter) -> None:
        """What was measured until now is not told of."""
        self._histograms: dict[str, Histogram] = {name: getattr(meter, name) for name in MEASURED}
        self._before = deque([self._counts()], maxlen=BEATS)

    def take(self) -> dict[str, str]:
        """Whole microseconds by name, as ``handling_p99_us``; "" where no message came."""
        counts, before = self._counts(), self._before[0]
        self._before.append(counts)
        fields: dict[str, str] = {}
        for name, histogram in self._histograms.items():
            lately = [now - then for now, then in zip(counts[name], before[name], strict=True)]
            for share_name, share in SHARES.items():
                found_s = quantile(histogram.bounds, lately, share)
                text = "" if found_s is None else str(round(found_s * 1_000_000))
                fields[f"{name}_{share_name}_us"] = text
        return fields

    def _counts(self) -> dict[str, list[int]]:
        return {name: list(one.counts) for name, one in self._histograms.items()}
