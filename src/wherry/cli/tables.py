"""What commands print: tables of 80 columns, JSON, and looks that are taken again and again."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from ..broker.connect import Store
from ..broker.link import Link
from ..errors import StoreUnavailable
from . import screen
from .exits import complain

WIDTH = 80

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """How a command shows what it finds.

    Attributes:
        as_json: as JSON instead of for people.
        watch: again and again until Ctrl-C.
        every_s: seconds between two looks.
    """

    as_json: bool = False
    watch: bool = False
    every_s: float = 2.0


def show(
    store: Store,
    look: Callable[[Link], Awaitable[Found]],
    as_text: Callable[[Found], str],
    as_data: Callable[[Found], object],
    showing: Showing,
) -> None:
    """Run a command that shows something: look and print, once or until Ctrl-C or SIGTERM.

    Watching redraws in place on a terminal and appends elsewhere; with JSON it prints a line for
    each look. An outage meanwhile is told and waited for.

    Args:
        store: where to look.
        look: finds out.
        as_text: the finding for people.
        as_data: the finding as `json.dumps` takes it.
        showing: which of them, and how often.

    Raises:
        WherryError: from ``look``; while watching from the first one, and any but an outage.
    """
    forgive_letters()

    def text(found: Found) -> str:
        if not showing.as_json:
            return as_text(found)
        return to_json(as_data(found), on_one_line=showing.watch)

    if not showing.watch:
        asyncio.run(_print_once(store, look, text))
        return
    # Ctrl-C cancels and raises the first, SIGTERM cancels.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_watch(store, look, text, showing))


def forgive_letters() -> None:
    """Let what the terminal has no letters for become a question mark: that is no mistake."""
    with contextlib.suppress(AttributeError):
        cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace")


def to_json(value: object, *, on_one_line: bool = False) -> str:
    """A finding as JSON: indented, or on one line."""
    return json.dumps(value, indent=None if on_one_line else 2)


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """Columns under their titles, cut at 80.

    Args:
        titles: of the columns.
        rows: cells; letters that a terminal would obey are shown as escapes.
        left: columns that are flush left; the others, numbers, are flush right.
    """
    shown = [[visible(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    return "\n".join(line[:WIDTH] for line in lines)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, one below the other; an empty value leaves its line out."""
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name.ljust(width)}  {visible(value)}" for name, value in pairs if value)


def visible(text: str) -> str:
    """The text with everything that a terminal would obey, or not show, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def shorten(text: str, width: int) -> str:
    """Keep both ends: names of one fleet differ at either."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def span(seconds: float) -> str:
    """A length of time in at most six letters: ``0.4 s``, ``12 s``, ``3 min``, ``5 h``, ``9 d``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit, length, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds / 86_400)} d"


async def _print_once(
    store: Store, look: Callable[[Link], Awaitable[Found]], text: Callable[[Found], str]
) -> None:
    link = store.link()
    try:
        print(text(await look(link)))
    finally:
        await link.aclose()


async def _watch(
    store: Store,
    look: Callable[[Link], Awaitable[Found]],
    text: Callable[[Found], str],
    showing: Showing,
) -> None:
    task = asyncio.current_task()
    if task is not None:
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    link = store.link()
    try:
        picture = text(await look(link))
        with _screen(showing) as draw:
            while True:
                draw(picture)
                await asyncio.sleep(showing.every_s)
                picture = await _look_again(link, look, text, draw)
    finally:
        await link.aclose()


async def _look_again(
    link: Link,
    look: Callable[[Link], Awaitable[Found]],
    text: Callable[[Found], str],
    draw: _Draw,
) -> str:
    """The next picture; an outage is waited for."""
    pause_s = 0.5
    while True:
        try:
            return text(await look(link))
        except StoreUnavailable as error:
            draw.complain(f"{error}; looking again")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)


class _Draw:
    """Shows one picture after the other: in the place of the last, or below it."""

    __slots__ = ("_every_s", "_in_place", "_separator", "_trouble")

    def __init__(self, showing: Showing, *, in_place: bool) -> None:
        self._every_s = showing.every_s
        self._in_place = in_place
        self._separator = "" if showing.as_json else "\n"
        self._trouble = ""

    def __call__(self, picture: str) -> None:
        self._trouble = ""
        if self._in_place:
            self._redraw(f"every {self._every_s:g} s, Ctrl-C ends", picture)
        else:
            print(picture, end=f"\n{self._separator}", flush=True)

    def complain(self, trouble: str) -> None:
        if self._in_place:
            self._redraw(trouble, "")
        elif trouble != self._trouble:
            self._trouble = trouble
            complain(trouble)

    def _redraw(self, title: str, picture: str) -> None:
        size = shutil.get_terminal_size((WIDTH, 24))
        lines = [f"{time.strftime('%H:%M:%S')}  {title}", "", *picture.splitlines()]
        if len(lines) > size.lines:
            hidden = len(lines) - size.lines + 1
            lines[size.lines - 1 :] = [f"({hidden} more lines; the window is too low for them)"]
        screen.draw([line[: size.columns] for line in lines])


@contextlib.contextmanager
def _screen(showing: Showing) -> Generator[_Draw]:
    """Where to draw; a terminal is left as it was found."""
    in_place = sys.stdout.isatty() and not showing.as_json
    if not in_place:
        yield _Draw(showing, in_place=False)
        return
    screen.enter()
    try:
        yield _Draw(showing, in_place=True)
    finally:
        screen.leave()
