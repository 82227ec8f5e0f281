"""Spread: what many measurements say together."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def told(figures: dict[str, float], digits: int = 2) -> str:
    """A spread in words."""
    return (
        f"median {figures['median']:.{digits}f}, "
        f"from {figures['min']:.{digits}f} to {figures['max']:.{digits}f}"
    )


def percentiles(spent_s: Sequence[float]) -> dict[str, float]:
    """Count, p50, p99 and longest of durations in seconds, as milliseconds."""
    in_order = sorted(spent_s)
    return {
        "count": len(in_order),
        "p50_ms": 1000 * in_order[len(in_order) // 2],
        "p99_ms": 1000 * in_order[min(len(in_order) - 1, int(len(in_order) * 0.99))],
        "max_ms": 1000 * in_order[-1],
    }
