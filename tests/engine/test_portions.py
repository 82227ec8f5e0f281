"""What one read has brought is handled in portions of much the same size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.portions import MANY, PORTION, portions_of


def brought(sizes: list[int]) -> dict[str, list[int]]:
    return {f"stream {number}": [number] * size for number, size in enumerate(sizes)}


@pytest.mark.parametrize(
    ("streams", "each", "portions"),
    [
        (0, 1, [0]),
        (2 * PORTION - 1, 1, [2 * PORTION - 1]),
        (2 * PORTION, 1, [PORTION, PORTION]),
        (50, 1, [25, 25]),
        (16, 4, [32, 32]),
        (7, 10, [40, 30]),
        (1, 100, [100]),
        (MANY - 1, 1, [26, 26, 26, 26, 23]),
        (MANY, 1, [MANY]),
    ],
)
def test_so_many_make_portions(streams: int, each: int, portions: list[int]):
    found = portions_of(brought([each] * streams), streams * each)
    assert [sum(map(len, one.values())) for one in found] == portions


@given(st.lists(st.integers(1, 9), max_size=80))
def test_portions_together_are_what_was_brought(sizes: list[int]):
    what = brought(sizes)
    found = portions_of(what, sum(sizes))
    assert [pair for one in found for pair in one.items()] == list(what.items())
