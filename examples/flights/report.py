"""The check and the table: what the reply streams say, compared with the file.

    python -m examples.flights.report

Follows the reply streams until every flight is answered, then reads them once more from their
beginning: each flight must be answered exactly once and in order, and the last totals of each
aircraft must equal a plain computation over the file. Exit code 1 if anything differs.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry import Client, Restarted

from .month import MONTH, NO_TAIL_NUMBER, read_month, rows_by_scope
from .settings import client_settings

STREAMS_AT_A_TIME = 100
Totals = dict[str, int]


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        totals: last totals of each scope, as its last reply told them.
        problems: one sentence for each thing that is wrong.
    """

    totals: dict[str, Totals] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def compute_totals(path: Path = MONTH) -> dict[str, Totals]:
    """The same totals by the plainest means, sharing nothing with the application."""
    totals: dict[str, Totals] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            aircraft = totals.setdefault(
                line["tailnum"] or NO_TAIL_NUMBER,
                {"flights": 0, "miles": 0, "delay_min": 0, "cancelled": 0},
            )
            if line["arr_delay"] == "":
                aircraft["cancelled"] += 1
            else:
                aircraft["flights"] += 1
                aircraft["miles"] += int(line["distance"])
                aircraft["delay_min"] += int(line["arr_delay"])
    return totals


async def wait_for_answers(
    client: Client, rows: Mapping[str, Sequence[int]], on_answer: Callable[[], None]
) -> None:
    """Follow the reply streams until each scope has given as many answers as it has flights.

    All scopes are followed at a time: the client reads hundreds of streams with one command.

    Args:
        client: of the namespace that the flights were sent to.
        rows: the flights of each scope.
        on_answer: called for each answer as it comes.
    """

    async def follow(scope_id: str, count: int) -> None:
        async for reply in client.replies(scope_id, follow=True):
            if reply is not None and not isinstance(reply, Restarted):
                on_answer()
                count -= 1
                if count == 0:
                    return

    async with asyncio.TaskGroup() as tasks:
        for scope_id, scope_rows in rows.items():
            tasks.create_task(follow(scope_id, len(scope_rows)), name=f"follow:{scope_id}")


async def check_answers(client: Client, rows: Mapping[str, Sequence[int]]) -> Report:
    """Read every reply stream from its beginning and compare it with the file."""
    report = Report()
    expected = compute_totals()
    turns = asyncio.Semaphore(STREAMS_AT_A_TIME)

    async def check(scope_id: str) -> None:
        async with turns:
            replies = [
                reply.message or {"type": "error", "error": reply.error}
                async for reply in client.replies(scope_id)
                if reply is not None and not isinstance(reply, Restarted)
            ]
        compare(report, scope_id, replies, rows[scope_id], expected[scope_id])

    async with asyncio.TaskGroup() as tasks:
        for scope_id in rows:
            tasks.create_task(check(scope_id), name=f"check:{scope_id}")
    return report


def compare(
    report: Report,
    scope_id: str,
    replies: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    expected: Totals,
) -> None:
    """Compare all replies of one scope with its flights; differences go into the report."""
    answered = [reply.get("row") for reply in replies]
    if answered != list(rows):
        report.problems.append(
            f"{scope_id}: {len(rows)} flights should be answered once and in order, but there "
            f"are {len(answered)} answers of {len(set(answered))} flights: {answered[:8]}..."
        )
    last = replies[-1] if replies else {}
    found = {name: int(last.get(name, 0)) for name in expected}
    report.totals[scope_id] = found
    if found != expected:
        report.problems.append(f"{scope_id}: totals are {found}, the file gives {expected}")


def format_table(report: Report, *, duration_s: float | None = None) -> str:
    """The table as text.

    Args:
        report: what was found.
        duration_s: from the first flight sent to the last answer read, seconds, if known.
    """
    aircraft = {one: totals for one, totals in report.totals.items() if one != NO_TAIL_NUMBER}
    busiest = sorted(aircraft, key=lambda one: (-aircraft[one].get("flights", 0), one))[:5]
    latest = sorted(aircraft, key=lambda one: (-aircraft[one].get("delay_min", 0), one))[:5]
    cancelled = sum(totals.get("cancelled", 0) for totals in report.totals.values())
    answered = cancelled + sum(totals.get("flights", 0) for totals in report.totals.values())
    lines = _section("busiest aircraft", busiest, aircraft)
    lines += _section("worst accumulated delay", latest, aircraft)
    lines += [f"flights answered        {answered:>9,}  of {len(aircraft):,} aircraft"]
    lines += [f"cancelled or diverted   {cancelled:>9,}"]
    if duration_s:
        rate = answered / duration_s
        lines += [f"messages a second       {rate:>9,.0f}  ({duration_s:.1f} s)"]
    return "\n".join(lines)


def _section(title: str, scope_ids: Sequence[str], totals: Mapping[str, Totals]) -> list[str]:
    columns = ("flights", "miles", "delay_min", "cancelled")
    lines = [f"{title:<24}" + "".join(f"{name:>11}" for name in columns)]
    for scope_id in scope_ids:
        figures = "".join(f"{totals[scope_id].get(name, 0):>11,}" for name in columns)
        lines.append(f"  {scope_id:<22}{figures}")
    return [*lines, ""]


def format_verdict(report: Report) -> str:
    """One sentence, or the first problems."""
    if not report.problems:
        return (
            f"check: all {len(report.totals):,} totals equal a plain computation over the file; "
            "every flight was answered exactly once, in order"
        )
    shown = "\n".join(f"  {problem}" for problem in report.problems[:10])
    return f"check FAILED, {len(report.problems)} problems:\n{shown}"


async def main() -> int:
    """Wait for all answers of the month; print the table and the verdict."""
    url, namespace = client_settings(__doc__)
    rows = rows_by_scope(read_month())
    async with Client(url, namespace=namespace) as client:
        await wait_for_answers(client, rows, lambda: None)
        report = await check_answers(client, rows)
    print(format_table(report))
    print(format_verdict(report))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
