"""The data: all flights that left New York's three airports in January 2013.

``flights-2013-01.csv.gz`` comes from the US Bureau of Transportation Statistics and is in the
public domain. Each aircraft is a scope, named by its tail number.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MONTH = Path(__file__).with_name("flights-2013-01.csv.gz")
NO_TAIL_NUMBER = "no-tail-number"
"""The scope of flights whose aircraft is not known."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One line of the file.

    Attributes:
        row: number of the line, from 1.
        scope_id: tail number of the aircraft.
        message: what is sent to the application.
    """

    row: int
    scope_id: str
    message: dict[str, Any]


def read_month(path: Path = MONTH) -> list[Flight]:
    """All flights in the order of the file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return [_read_flight(row, line) for row, line in enumerate(csv.DictReader(lines), start=1)]


def _read_flight(row: int, line: dict[str, str]) -> Flight:
    message = {
        "type": "flight",
        "row": row,
        "day": int(line["day"]),
        "carrier": line["carrier"],
        "flight": line["flight"],
        "origin": line["origin"],
        "dest": line["dest"],
        "distance": int(line["distance"]),
        "arr_delay": int(line["arr_delay"]) if line["arr_delay"] else None,
    }
    return Flight(row, line["tailnum"] or NO_TAIL_NUMBER, message)


def rows_by_scope(flights: Iterable[Flight]) -> dict[str, list[int]]:
    """The rows that each scope has to answer, in order."""
    rows: dict[str, list[int]] = {}
    for flight in flights:
        rows.setdefault(flight.scope_id, []).append(flight.row)
    return rows
