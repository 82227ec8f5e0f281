"""Canvas: lines of inked text, as wide as the terminal, and the small pictures in them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from .tables import shorten, visible

_LEVELS = "▁▂▃▄▅▆▇█"


class Ink(Enum):
    """How a terminal shows a piece of text: parameters of "select graphic rendition"."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    DOUBTFUL = "33"
    BAD = "1;31"
    CURVE = "36"


class Piece(NamedTuple):
    """Some text of one ink."""

    text: str
    ink: Ink = Ink.PLAIN


Line = tuple[Piece, ...]


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: above it.
        width: in letters; 0 of one column alone, which takes what the others leave.
        is_left: flush left; others, numbers, are flush right.
        from_width: it is there where the whole has so many letters.
    """

    title: str
    width: int
    is_left: bool = False
    from_width: int = 0


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(one.text for one in line).rstrip()


def coloured(line: Line) -> str:
    """The text as a terminal shows it in its inks."""
    return "".join(
        f"\x1b[{one.ink.value}m{one.text}\x1b[0m" if one.ink.value else one.text for one in line
    )


def cut(line: Line, width: int) -> Line:
    """The first so many letters."""
    kept: list[Piece] = []
    for text, ink in line:
        if width <= 0:
            break
        kept.append(Piece(text[:width], ink))
        width -= len(text)
    return tuple(kept)


def apart(left: Line, right: Line, width: int) -> Line:
    """Two parts at both ends of a line; the left one gives way."""
    room = width - len(plain(right)) - 1
    left = cut(left, max(0, room))
    gap = width - sum(len(one.text) for one in left) - len(plain(right))
    return (*left, Piece(" " * max(0, gap)), *right)


def beside(left: Sequence[Line], right: Sequence[Line], width: int, gap: int) -> list[Line]:
    """Two blocks side by side, the left one so wide."""
    lines: list[Line] = []
    for index in range(max(len(left), len(right))):
        first = cut(left[index], width) if index < len(left) else ()
        second = right[index] if index < len(right) else ()
        fill = width + gap - sum(len(one.text) for one in first)
        lines.append((*first, Piece(" " * fill), *second))
    return lines


def table(columns: Sequence[Column], rows: Sequence[Sequence[Piece]], width: int) -> list[Line]:
    """A title line and the rows; nothing moves while only the values change.

    Args:
        columns: what there is; those that need more width are left out with their cells.
        rows: a cell for each of the columns.
        width: of the whole.
    """
    there = [index for index, one in enumerate(columns) if width >= one.from_width]
    fixed = sum(columns[index].width for index in there)
    rest = max(4, width - fixed - 2 * (len(there) - 1))
    titles = [Piece(one.title, Ink.FAINT) for one in columns]
    return [
        _join([_fit(row[index], columns[index], rest) for index in there])
        for row in (titles, *rows)
    ]


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The last values as bars of eight heights, the greatest of them full; None is a gap.

    What is more than nothing is higher than the lowest bar.
    """
    shown = values[-width:] if width > 0 else ()
    top = max((one for one in shown if one is not None), default=0.0)
    bars = "".join(" " if one is None else _bar(one, top) for one in shown)
    return bars.rjust(width)


def per_second(rate: float | None) -> str:
    """A rate in at most nine letters: ``-``, ``0/s``, ``0.4/s``, ``1,234/s``, ``1.2M/s``."""
    if rate is None:
        return "-"
    if rate >= 999_999.5:
        return f"{rate / 1_000_000:.1f}M/s"
    return f"{rate:.1f}/s" if 0.05 <= rate < 9.95 else f"{rate:,.0f}/s"


def short_time(microseconds: int | None) -> str:
    """A short time in at most seven letters: ``-``, ``0.4 ms``, ``12 ms``, ``1.2 s``, ``75 s``."""
    if microseconds is None:
        return "-"
    for unit, length in (("ms", 1_000), ("s", 1_000_000)):
        value = microseconds / length
        if value < 9.95:
            return f"{value:.1f} {unit}"
        if value < 999.5:
            return f"{value:.0f} {unit}"
    return f"{microseconds / 1_000_000:.0f} s"


def _bar(value: float, top: float) -> str:
    if value <= 0:
        return _LEVELS[0]
    last = len(_LEVELS) - 1
    return _LEVELS[max(1, min(last, round(value / top * last)))]


def _fit(cell: Piece, column: Column, rest: int) -> Piece:
    width = column.width or rest
    text = visible(cell.text)
    if len(text) > width:
        text = shorten(text, width) if column.is_left else text[:width]
    return Piece(text.ljust(width) if column.is_left else text.rjust(width), cell.ink)


def _join(cells: Sequence[Piece]) -> Line:
    pieces: list[Piece] = []
    for cell in cells:
        pieces += [cell, Piece("  ")]
    return tuple(pieces[:-1])
