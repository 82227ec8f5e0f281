"""Histograms count by size, and quantiles are read from their counts."""

from __future__ import annotations

import pytest

from wherry.engine.histogram import COUNTS, SECONDS, Histogram, quantile


@pytest.mark.parametrize("bounds", [SECONDS, COUNTS])
def test_bounds_ascend(bounds: tuple[float, ...]):
    assert list(bounds) == sorted(set(bounds))


def test_a_value_counts_in_the_first_bucket_that_holds_it():
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 9):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1, 1]
    assert histogram.cumulative() == [2, 3, 4, 5]
    assert histogram.total == 16


def test_a_value_counts_for_all_that_it_stands_for():
    histogram = Histogram((1, 2))
    histogram.observe(1.5, 10)
    assert (histogram.cumulative(), histogram.total) == ([0, 10, 10], 15)


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([10, 10, 0], 0.5, 1),
        ([0, 10, 0], 0.5, 1.5),
        ([0, 10, 0], 1, 2),
        ([1, 0, 9], 0.99, 2),
    ],
)
def test_quantile_lies_within_its_bucket(counts: list[int], share: float, value: float | None):
    found = quantile((1, 2), counts, share)
    assert found == (value if value is None else pytest.approx(value))
