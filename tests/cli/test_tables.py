"""Tables, spans and letters that a terminal would obey."""

from __future__ import annotations

import pytest

from wherry.cli.tables import facts, shorten, span, table, to_json, visible


def test_columns_are_flush_and_lines_end_at_80():
    lines = table(
        ["NAME", "COUNT", "WHERE"], [["a", "1", "x"], ["bcdefg", "1234567", "y" * 90]], {0, 2}
    )
    assert lines.splitlines()[:2] == ["NAME      COUNT  WHERE", "a             1  x"]
    assert max(map(len, lines.splitlines())) == 80


def test_table_without_rows_is_its_titles():
    assert table(["A", "B"], []) == "A  B"


def test_what_a_terminal_would_obey_is_shown_as_escapes():
    """A scope id is what a producer likes it to be."""
    assert visible("\x1b[2Jé\n") == "\\x1b[2Jé\\n"
    assert "\x1b" not in table(["SCOPE"], [["\x1b]0;title\x07"]])
    assert "\x1b" not in facts([("scope", "\x1b[31m")])


def test_facts_leave_out_what_is_empty():
    assert facts([("a", "1"), ("bcd", ""), ("ef", "2")]) == "a    1\nef   2"


def test_both_ends_of_a_long_name_are_kept():
    assert shorten("0123456789", 10) == "0123456789"
    assert shorten("0123456789a", 10) == "01234…789a"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (172_799, "47 h"),
        (172_800, "2 d"),
    ],
)
def test_span(seconds: float, text: str):
    assert span(seconds) == text


def test_watched_json_is_one_line():
    assert to_json({"a": [1]}, on_one_line=True) == '{"a": [1]}'
    assert "\n" in to_json({"a": [1]})
