"""Lines of inked text: widths, tables that stand still, small curves and short numbers."""

from __future__ import annotations

import pytest

from wherry.cli.canvas import (
    Column,
    Ink,
    Piece,
    apart,
    beside,
    coloured,
    cut,
    per_second,
    plain,
    short_time,
    sparkline,
    table,
)

COLUMNS = (
    Column("NAME", 0, is_left=True),
    Column("MORE", 5, from_width=40),
    Column("COUNT", 6),
)


def row(name: str, count: str) -> list[Piece]:
    return [Piece(name), Piece("more"), Piece(count, Ink.BAD)]


def test_table_is_as_wide_as_it_is_told_whatever_is_in_it():
    for rows in ([], [row("a", "1")], [row("a" * 90, "1234567890")]):
        lines = table(COLUMNS, rows, 30)
        assert {sum(len(one.text) for one in line) for line in lines} == {30}
    shown = [plain(line) for line in table(COLUMNS, [row("a", "1")], 30)]
    assert shown == [f"{'NAME':24}{'COUNT':>6}", f"{'a':24}{'1':>6}"]


def test_column_is_there_where_there_is_room():
    assert "MORE" not in plain(table(COLUMNS, [], 39)[0])
    assert plain(table(COLUMNS, [row("a", "1")], 40)[1]).split() == ["a", "more", "1"]


def test_what_a_terminal_would_obey_is_shown_as_escapes():
    assert "\x1b" not in plain(table(COLUMNS, [row("\x1b[2J", "1")], 30)[1])


def test_inks_are_for_the_terminal_alone():
    line = (Piece("a"), Piece("b", Ink.BAD))
    assert plain(line) == "ab"
    assert coloured(line) == "a\x1b[1;31mb\x1b[0m"


def test_cut_counts_letters_of_all_pieces():
    assert cut((Piece("abc"), Piece("def", Ink.BAD), Piece("g")), 4) == (
        Piece("abc"),
        Piece("d", Ink.BAD),
    )


def test_left_part_gives_way_to_the_right_one():
    assert plain(apart((Piece("left"),), (Piece("right"),), 12)) == "left   right"
    assert plain(apart((Piece("left"),), (Piece("right"),), 8)) == "le right"


def test_blocks_stand_side_by_side():
    lines = beside([(Piece("a"),), (Piece("bbbbbb"),)], [(Piece("c"),)], 4, 2)
    assert [plain(line) for line in lines] == ["a     c", "bbbb"]


def test_sparkline_shows_the_last_values_against_the_greatest_of_them():
    assert sparkline([0, 1, 4, 7], 4) == "▁▂▅█"
    assert sparkline([900, 0, 7], 2) == "▁█"


def test_sparkline_of_nothing_is_low_and_of_something_is_not():
    assert sparkline([0, 0, 0], 3) == "▁▁▁"
    assert sparkline([0, 0.001, 1000], 3) == "▁▂█"


def test_sparkline_has_gaps_where_nothing_is_known():
    assert sparkline([None, 5], 4) == "   █"
    assert sparkline([], 3) == "   "
    assert sparkline([1], 0) == ""


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "-"),
        (0.0, "0/s"),
        (0.04, "0/s"),
        (0.05, "0.1/s"),
        (9.94, "9.9/s"),
        (9.96, "10/s"),
        (1234.4, "1,234/s"),
        (999_999.4, "999,999/s"),
        (1_234_567.0, "1.2M/s"),
    ],
)
def test_per_second(rate: float | None, text: str):
    assert per_second(rate) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "-"),
        (0, "0.0 ms"),
        (440, "0.4 ms"),
        (9_949, "9.9 ms"),
        (9_950, "10 ms"),
        (999_499, "999 ms"),
        (999_500, "1.0 s"),
        (75_000_000, "75 s"),
        (3_000_000_000, "3000 s"),
    ],
)
def test_short_time(microseconds: int | None, text: str):
    assert short_time(microseconds) == text
