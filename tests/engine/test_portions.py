"""What one read has brought is handled in portions of much the same size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.portions import LEAST, MANY, PORTION, Portions


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
    found = Portions().part(brought([each] * streams), streams * each, lambda: False)
    assert [sum(map(len, one.values())) for one in found] == portions


@given(st.lists(st.integers(1, 9), max_size=80))
def test_portions_together_are_what_was_brought(sizes: list[int]):
    what = brought(sizes)
    found = Portions().part(what, sum(sizes), lambda: False)
    assert [pair for one in found for pair in one.items()] == list(what.items())


def test_portions_are_under_way_until_few_or_many_come():
    portions = Portions()

    def are_under_way_after(count: int, *, is_whole: bool = False) -> bool:
        found = portions.part(brought([1] * count), count, lambda: is_whole)
        assert not is_whole or len(found) == 1
        return portions.are_under_way

    assert not are_under_way_after(PORTION)
    for other in (LEAST - 1, MANY):
        assert are_under_way_after(2 * PORTION)
        assert are_under_way_after(LEAST)
        assert are_under_way_after(3 * PORTION, is_whole=True)
        assert not are_under_way_after(other)
        assert not are_under_way_after(3 * PORTION, is_whole=True)
