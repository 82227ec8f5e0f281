"""The lines of ``wherry top``: all there is to see, in any terminal."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wherry.cli.canvas import plain
from wherry.cli.lookup import Scopes
from wherry.cli.overview import View, compose, share_rows
from wherry.cli.show import Status
from wherry.cli.trail import Trail
from wherry.model import MemberInfo, Partition, PartitionInfo


def member(name: str, **fields: int | str) -> MemberInfo:
    told = {"state": "running", "up_ms": "60000", "last_ms": "2000", "last_done": "500"}
    return MemberInfo(worker_id=name, fields=told | {key: str(one) for key, one in fields.items()})


MEASURED = {
    "queueing_p50_us": 1200,
    "queueing_p99_us": 12_000,
    "handling_p50_us": 400,
    "handling_p99_us": 3100,
}


def partition(number: int, owner: str, backlog: int = 0, dead: int = 0) -> PartitionInfo:
    return PartitionInfo(
        partition=Partition(number),
        owner=owner,
        lease_ms=5000,
        backlog=backlog,
        dead=dead,
        oldest_ms=4700 if backlog else 0,
    )


STATUS = Status(
    namespace="shop",
    store="redis://h:6379/0",
    generation="abc",
    members=[
        member("web-1-4711-5f3a9c", in_flight=7, busy=3, retried=12, dead=1, **MEASURED),
        member("web-2-4711-a90c1e", state="draining"),
    ],
    partitions=[
        partition(0, "web-1-4711-5f3a9c", backlog=12, dead=1),
        partition(1, "web-2-4711-a90c1e", backlog=1),
        partition(2, ""),
    ],
)


def scope(name: str, **more: Any) -> dict[str, Any]:
    return {"scope": name, "state": "busy", "waiting": 0, "deferred": 0, "oldest_ms": 0} | more


def scopes(*rows: dict[str, Any], total: int = 1204, silent: tuple[str, ...] = ()) -> Scopes:
    return Scopes(where="", is_used=True, total=total, rows=rows, silent=silent)


def view(status: Status = STATUS, **more: Any) -> View:
    trail = Trail()
    trail.take(replace(status, partitions=()), 1.0)
    trail.take(status, 3.0)
    known: dict[str, Any] = {
        "slowest": scopes(scope("alice", oldest_ms=4700, state="backoff")),
        "fullest": scopes(scope("bob", waiting=40, deferred=2, attempt=3), scope("carol")),
        "clock": "12:03:04",
        "keys": "q quit",
    }
    return View(status=status, trail=trail, **known | more)


def drawn(shown: View, width: int = 80, height: int = 24) -> list[str]:
    return [plain(line) for line in compose(shown, width, height)]


def cells(lines: list[str], first: str) -> list[str]:
    [line] = [one for one in lines if one.startswith(first)]
    return line.split()


def test_everything_is_on_80_columns_and_24_lines():
    lines = drawn(view())
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert lines[0] == "wherry top  shop at redis://h:6379/0" + " " * 36 + "12:03:04"
    assert lines[1].startswith("workers 2  partitions 3  without owner 1  scopes 1,204  busy 3")
    assert cells(lines, "in ")[1] == "506/s"
    assert cells(lines, "done")[1] == "500/s"
    assert cells(lines, "backlog")[1] == "13"
    assert "oldest 4.7 s, dead letters 1" in "".join(lines)
    assert "tried again 12, died 1" in "".join(lines)
    assert "queued p50 1.2 ms  p99 12 ms" in "".join(lines)
    assert "handled p50 0.4 ms  p99 3.1 ms" in "".join(lines)
    assert cells(lines, "web-1")[1:] == ["running", "1", "7", "250", "13", "12", "ms", "3.1", "ms"]
    assert cells(lines, "web-2")[1:] == ["draining", "1", "0", "250", "0", "-", "-"]
    assert cells(lines, "alice") == ["alice", "4.7", "s", "backoff", "bob", "42", "2"]
    assert "carol" not in "".join(lines), "nothing waits for it"
    assert cells(lines, "0 ") == ["0", "web-1-4711-5f3a9c", "12", "▁█", "4.7", "s", "1"]
    assert lines[-1] == "q quit"


def test_nothing_moves_while_only_values_change():
    before = drawn(view())
    busier = replace(
        STATUS, partitions=[replace(one, backlog=one.backlog * 9999) for one in STATUS.partitions]
    )
    after = drawn(view(busier))
    titles = [line for line in before if line.isupper()]
    assert len(titles) == 3
    assert [after.index(line) for line in titles] == [before.index(line) for line in titles]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12), (20, 5), (250, 70), (1, 1)])
def test_no_terminal_is_too_small(size: tuple[int, int]):
    many = replace(
        STATUS,
        members=[member(f"w{number}", in_flight=number) for number in range(64)],
        partitions=[partition(number, f"w{number % 64}", backlog=1) for number in range(500)],
    )
    rows = [scope(f"scope-{number}", waiting=1, oldest_ms=9) for number in range(40)]
    lines = drawn(view(many, slowest=scopes(*rows), fullest=scopes(*rows)), *size)
    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]
    assert lines[-1] == "q quit"[: size[0]]


def test_busiest_workers_are_shown_where_there_is_no_room_for_all():
    members = [member(f"w{number}", in_flight=number) for number in range(64)]
    lines = drawn(view(replace(STATUS, members=members)))
    assert any(line.startswith("w63 ") for line in lines)
    assert not any(line.startswith("w0 ") for line in lines)
    assert "more: wherry workers ls" in "".join(lines)


def test_wide_terminal_has_more_columns():
    lines = drawn(view(), 120, 40)
    assert "INSTANCES" in "".join(lines)
    assert "INSTANCES" not in "".join(drawn(view()))


def test_fleet_that_measures_nothing_says_how_to_measure():
    lines = drawn(view(replace(STATUS, members=[member("w")])))
    assert cells(lines, "latency")[1] == "-"
    assert "--http-port" in next(line for line in lines if line.startswith("latency"))


def test_what_is_missing_is_said_in_its_place():
    bare = replace(STATUS, members=(), partitions=[partition(0, "")])
    lines = drawn(view(bare, slowest=scopes(total=0), fullest=scopes(total=0)))
    assert "workers 0  partitions 1  without owner 1" in lines[1]
    for text in (
        "there is none: what is sent waits",
        "no message is in hand",
        "nothing waits, and there are no dead letters",
    ):
        assert text in lines
    refused = view(slowest=None, fullest=None, scopes_note="Redis refuses a command")
    assert "Redis refuses a command" in drawn(refused)


def test_picture_of_the_documentation_is_of_this_screen():
    svg = (Path(__file__).parents[2] / "docs" / "top.svg").read_text("utf-8")
    shown = html.unescape(re.sub(r"<[^>]*>", " ", svg)).replace("\xa0", " ").split()
    titles = [word for line in drawn(view()) if line.isupper() for word in line.split()]
    assert set(titles) <= set(shown)
    assert "@font-face" not in svg


def test_unused_namespace_says_so():
    lines = drawn(view(Status(namespace="x", store="r", generation="", members=(), partitions=())))
    assert "nobody has used it yet: no partitions, no workers" in lines
    assert lines[-1] == "q quit"
    assert len(lines) == 24


def test_trouble_pause_and_silence_are_told_in_the_third_line():
    silent = view(slowest=scopes(silent=("w2",)))
    assert drawn(silent)[2] == "no answer in time from w2"
    paused = replace(silent, status=replace(STATUS, paused_ms=180_000))
    assert drawn(paused)[2].startswith("the namespace is paused for 3 min")
    assert drawn(replace(paused, trouble="Redis is away\x1b[2J"))[2] == "Redis is away\\x1b[2J"


def test_names_cannot_steer_the_terminal():
    odd = view(slowest=scopes(scope("\x1b[2Jx", oldest_ms=1)), fullest=scopes())
    assert not any("\x1b" in line for line in drawn(odd))


@pytest.mark.parametrize(
    ("room", "wanted", "given"),
    [
        (9, [2, 4, 60], [2, 4, 3]),
        (9, [60, 60, 60], [3, 3, 3]),
        (20, [2, 1, 3], [2, 1, 3]),
        (1, [5, 5], [1, 0]),
        (-3, [5, 5], [0, 0]),
    ],
)
def test_rows_are_shared(room: int, wanted: list[int], given: list[int]):
    assert share_rows(room, wanted) == given
