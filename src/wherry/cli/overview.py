"""Overview: the lines of ``wherry top``, for a terminal of any size.

Nothing here looks or waits: what is to be seen comes as a `View`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..model import MemberInfo, PartitionInfo
from .canvas import (
    Column,
    Ink,
    Line,
    Piece,
    apart,
    beside,
    cut,
    per_second,
    short_time,
    sparkline,
    table,
)
from .lookup import Row, Scopes
from .show import UNUSED, Status, held, number, state_of
from .tables import span, visible
from .trail import Mark, Pace, Trail, is_measuring, latency
from .workers import measured

_LABEL, _VALUE, _NOTE = 8, 9, 30
_WORKERS = (
    Column("WORKER", 0, is_left=True),
    Column("STATE", 8, is_left=True),
    Column("PARTS", 5),
    Column("FLIGHT", 6),
    Column("BUSY", 6, from_width=100),
    Column("INSTANCES", 9, from_width=100),
    Column("DONE/S", 7),
    Column("FAILED", 6),
    Column("QUEUE99", 7),
    Column("HANDLE99", 8),
    Column("UP", 7, from_width=100),
)
_SLOWEST = (
    Column("SLOWEST", 0, is_left=True),
    Column("OLDEST", 7),
    Column("STATE", 8, is_left=True),
)
_FULLEST = (Column("FULLEST", 0, is_left=True), Column("WAITING", 7), Column("TRIED", 5))
_PARTITIONS = (
    Column("PARTITION", 9, is_left=True),
    Column("OWNER", 0, is_left=True),
    Column("BACKLOG", 9),
    Column("", 16),
    Column("OLDEST", 7),
    Column("DEAD", 6),
)
_NO_METER = "not measured: start workers with --http-port"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is to be seen.

    Attributes:
        status: the last look.
        trail: it and those before it.
        slowest: scopes by the age of their oldest message, None while that is not known.
        fullest: scopes by what waits for them.
        scopes_note: why they are not known, "" if they are.
        trouble: why the last look is old, "" if it is not.
        clock: the time of the last look.
        keys: what the keyboard is for, in the last line; "" leaves that line out.
    """

    status: Status
    trail: Trail
    slowest: Scopes | None = None
    fullest: Scopes | None = None
    scopes_note: str = ""
    trouble: str = ""
    clock: str = ""
    keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the screen that may be higher or lower.

    Attributes:
        rows: how many it could use.
        lines: makes them, with a title, of as many rows as there is room for.
    """

    rows: int
    lines: Callable[[int], list[Line]] = field(repr=False)


def compose(view: View, width: int, height: int) -> list[Line]:
    """The screen: at most so many lines, none of them wider."""
    status = view.status
    foot = [(Piece(view.keys, Ink.FAINT),)] if view.keys else []
    lines = [*_head(view, width)]
    if status.generation:
        lines += [*_gauges(view, width), ()]
        parts = [_workers(view, width), _scopes(view, width), _partitions(view, width)]
        # A title each, and an empty line between two.
        room = height - len(lines) - len(foot) - 2 * len(parts) + 1
        for part, rows in zip(parts, share_rows(room, [one.rows for one in parts]), strict=True):
            lines += [*part.lines(rows), ()]
        lines.pop()
    else:
        lines.append((Piece(UNUSED),))
    if foot:
        lines += [()] * (height - len(foot) - len(lines))
    lines = lines[: max(0, height - len(foot))] + foot
    return [cut(one, width) for one in lines[:height]]


def share_rows(room: int, wanted: Sequence[int]) -> list[int]:
    """Give each part the rows that it wants, or as many as the others while there are any."""
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for index, most in enumerate(wanted):
            if room > 0 and given[index] < most:
                given[index] += 1
                room -= 1
    return given


def _head(view: View, width: int) -> list[Line]:
    status = view.status
    where = f"  {visible(status.namespace)} at {visible(status.store)}"
    name = (Piece("wherry top", Ink.STRONG), Piece(where))
    first = apart(name, (Piece(view.clock, Ink.FAINT),), width)
    if not status.generation:
        return [first, _told(view), ()]
    counts = [
        Piece(f"workers {len(status.members)}", Ink.PLAIN if status.members else Ink.BAD),
        Piece(f"partitions {len(status.partitions)}"),
        Piece(f"without owner {status.free}", Ink.BAD if status.free else Ink.FAINT),
        Piece(f"scopes {'-' if view.slowest is None else format(view.slowest.total, ',')}"),
        Piece(f"busy {status.total('busy')}"),
        Piece(f"in flight {status.total('in_flight'):,}"),
    ]
    second = tuple(piece for one in counts for piece in (one, Piece("  ")))
    return [first, second, _told(view)]


def _told(view: View) -> Line:
    if view.trouble:
        return (Piece(visible(view.trouble), Ink.BAD),)
    if view.status.paused_ms is not None:
        length = span(view.status.paused_ms / 1000)
        text = f"the namespace is paused for {length}: wherry resume lets it go on"
        return (Piece(text, Ink.DOUBTFUL),)
    if view.slowest is not None and view.slowest.silent:
        text = f"no answer in time from {', '.join(view.slowest.silent)}"
        return (Piece(visible(text), Ink.DOUBTFUL),)
    return ()


def _gauges(view: View, width: int) -> list[Line]:
    status, marks = view.status, list(view.trail.marks)
    last = marks[-1].pace if marks else Pace()
    died, failed = status.total("dead"), status.total("retried")
    oldest = f"oldest {span(status.oldest_ms / 1000)}, " if status.backlog else ""
    dead = Piece(f"dead letters {status.dead:,}", Ink.BAD if status.dead else Ink.PLAIN)

    def line(name: str, value: str, of: Callable[[Mark], float | None], *note: Piece) -> Line:
        room = width - _LABEL - _VALUE - _NOTE - 4
        values = [of(one) for one in marks]
        return (
            Piece(name.ljust(_LABEL), Ink.FAINT),
            Piece(value.rjust(_VALUE), Ink.STRONG),
            Piece(f"  {sparkline(values, max(0, room))}  ", Ink.CURVE),
            *note,
        )

    return [
        line("in", per_second(marks[-1].entered if marks else None), lambda one: one.entered),
        line(
            "done",
            per_second(last.done),
            lambda one: one.pace.done,
            Piece(f"replies {per_second(last.replies)}"),
        ),
        line("backlog", f"{status.backlog:,}", lambda one: one.backlog, Piece(oldest), dead),
        line(
            "failed",
            per_second(last.failed),
            lambda one: one.pace.failed,
            Piece(f"tried again {failed:,}, died {died:,}", Ink.DOUBTFUL if failed else Ink.PLAIN),
        ),
        _latency_line(status.members),
    ]


def _latency_line(members: Sequence[MemberInfo]) -> Line:
    label = Piece("latency".ljust(_LABEL), Ink.FAINT)
    if not any(is_measuring(one) for one in members):
        return (label, Piece("-".rjust(_VALUE), Ink.STRONG), Piece(f"  {_NO_METER}", Ink.FAINT))
    pieces = [label]
    for what, title in (("queueing", "  queued"), ("handling", "  handled")):
        found = latency(members, what)
        pieces.append(Piece(title))
        for name, value in (("p50", found.p50), ("p99", found.p99)):
            pieces += [Piece(f" {name} "), Piece(short_time(value).ljust(7), Ink.STRONG)]
    return tuple(pieces)


def _workers(view: View, width: int) -> Part:
    status = view.status
    members = list(status.members)

    def row(one: MemberInfo) -> list[Piece]:
        state = state_of(one)
        failed = number(one, "retried") + number(one, "dead")
        pace = view.trail.paces.get(one.worker_id, Pace())
        return [
            Piece(one.worker_id),
            Piece(state, Ink.GOOD if state == "running" else Ink.DOUBTFUL),
            Piece(str(held(status, one))),
            Piece(str(number(one, "in_flight"))),
            Piece(str(number(one, "busy"))),
            Piece(str(number(one, "instances"))),
            Piece(f"{pace.done:,.0f}"),
            Piece(str(failed), Ink.DOUBTFUL if failed else Ink.PLAIN),
            Piece(short_time(measured(one, "queueing_p99_us"))),
            Piece(short_time(measured(one, "handling_p99_us"))),
            Piece(span(number(one, "up_ms") / 1000)),
        ]

    def lines(rows: int) -> list[Line]:
        if len(members) <= rows:
            return table(_WORKERS, [row(one) for one in members], width)
        # The busiest of those for which there is no room; the last row tells of the others.
        first = sorted(members, key=lambda one: -number(one, "in_flight"))[: max(0, rows - 1)]
        more = f"and {len(members) - len(first)} more: wherry workers ls"
        shown = table(_WORKERS, [row(one) for one in first], width)
        return [*shown, (Piece(more, Ink.FAINT),)][: rows + 1]

    return _or_none(Part(rows=len(members), lines=lines), "there is none: what is sent waits")


def _scopes(view: View, width: int) -> Part:
    half = (width - 2) // 2

    def slow(row: Row) -> list[Piece]:
        state = str(row["state"])
        ink = Ink.PLAIN if state in ("busy", "idle", "waiting") else Ink.DOUBTFUL
        return [Piece(str(row["scope"])), Piece(span(row["oldest_ms"] / 1000)), Piece(state, ink)]

    def full(row: Row) -> list[Piece]:
        tried = int(row.get("attempt", 1)) - 1
        return [
            Piece(str(row["scope"])),
            Piece(f"{_waiting(row):,}"),
            Piece(str(tried) if tried else "-", Ink.DOUBTFUL if tried else Ink.PLAIN),
        ]

    slowest = [one for one in (view.slowest.rows if view.slowest else ()) if one["oldest_ms"]]
    fullest = [one for one in (view.fullest.rows if view.fullest else ()) if _waiting(one)]

    def lines(rows: int) -> list[Line]:
        return beside(
            table(_SLOWEST, [slow(one) for one in slowest[:rows]], half),
            table(_FULLEST, [full(one) for one in fullest[:rows]], width - 2 - half),
            half,
            2,
        )

    note = view.scopes_note or ("-" if view.slowest is None else "no message is in hand")
    return _or_none(Part(rows=max(len(slowest), len(fullest)), lines=lines), note)


def _partitions(view: View, width: int) -> Part:
    told = [one for one in view.status.partitions if one.backlog or one.dead]
    told.sort(key=lambda one: (-one.backlog, -one.dead, one.partition))

    def row(one: PartitionInfo) -> list[Piece]:
        past = [mark.waiting.get(one.partition, 0) for mark in view.trail.marks]
        return [
            Piece(str(one.partition)),
            Piece(one.owner) if one.owner else Piece("(free)", Ink.BAD),
            Piece(f"{one.backlog:,}"),
            Piece(sparkline(past, _PARTITIONS[3].width), Ink.CURVE),
            Piece(span(one.oldest_ms / 1000) if one.backlog else "-"),
            Piece(f"{one.dead:,}", Ink.BAD if one.dead else Ink.PLAIN),
        ]

    def lines(rows: int) -> list[Line]:
        return table(_PARTITIONS, [row(one) for one in told[:rows]], width)

    note = "nothing waits, and there are no dead letters"
    return _or_none(Part(rows=len(told), lines=lines), note)


def _or_none(part: Part, note: str) -> Part:
    """The part, or under its titles why it is empty."""
    if part.rows:
        return part
    why = (Piece(visible(note), Ink.FAINT),)
    return Part(rows=1, lines=lambda rows: [*part.lines(0), why][: rows + 1])


def _waiting(row: Row) -> int:
    return int(row["waiting"]) + int(row["deferred"])
