"""Points: where faults strike, by name, and how often each was hit.

A point is ``<kind>.<where>.<what>``: a kind of call to Redis, before or after it took effect
there, and what happens then; or ``world.<what>``, which strikes beside all calls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from wherry.broker.scripts import Scripts

WRITES = (
    *("meta", "beat", "claim", "renew", "release", "leave"),
    *("commit", "emit", "fail", "bury", "send"),
)
READS = ("connect", "info", "survey", "attempts", "read", "load", "refill", "length", "subscribe")
KINDS = (*WRITES, *READS, "unblock")
WHATS = ("error", "delay", "lost", "stall", "crash")
WORLD = (
    *("crash", "stall", "cut", "drain", "grow", "jump"),
    *("scripts", "flush", "rollback", "forget", "split"),
)
UNKNOWN = "other"


def _call_points() -> list[str]:
    points: list[str] = []
    for kind in KINDS:
        for where in ("before", "after"):
            for what in WHATS:
                if kind == "send" and what in ("stall", "crash"):
                    continue  # the producer is no worker
                points.append(f"{kind}.{where}.{what}")
        if kind in WRITES:
            points.append(f"{kind}.before.late")
    return points


CALL_POINTS = tuple(_call_points())
POINTS = (*CALL_POINTS, *(f"world.{what}" for what in WORLD))

MEANINGS = {
    "before.error": "the connection breaks, and Redis never saw the call",
    "after.error": "Redis did it, and the connection breaks before the answer",
    "before.delay": "the call reaches Redis late",
    "after.delay": "the answer comes late",
    "before.lost": "the call vanishes, and the connection times out",
    "after.lost": "the answer vanishes, and the connection times out",
    "before.late": "the connection breaks, and Redis carries the call out later",
    "before.stall": "the worker stands still for longer than its lease, then the call goes out",
    "after.stall": "the worker stands still for longer than its lease, with the answer unread",
    "before.crash": "the worker dies before the call",
    "after.crash": "the worker dies when Redis has carried the call out",
}

_COMMANDS = {
    b"HSETNX": "meta",
    b"XREAD": "read",
    b"HMGET": "load",
    b"XRANGE": "refill",
    b"HGETALL": "attempts",
    b"INFO": "info",
    b"ZREM": "leave",
    b"SUBSCRIBE": "subscribe",
    b"XLEN": "length",
}
_CLIENT = {b"ID": "connect", b"UNBLOCK": "unblock"}
_ENTRY = re.compile(rb"\d+-\d+")
_OPERATIONS = {b"c": "commit", b"f": "fail", b"b": "bury"}


def _scripts() -> dict[bytes, str]:
    scripts = Scripts(memory=True)
    found: dict[bytes, str] = {}
    for name in ("beat", "claim", "commit", "release", "renew", "send", "survey"):
        script = getattr(scripts, name)
        found[str(script.command([], [])[1]).encode()] = name
        found[script.source.encode()] = name
    return found


_known: dict[bytes, str] = {}


def learn_scripts() -> None:
    """Know the scripts of the product as they are now: a mutant may have changed them."""
    _known.clear()
    _known.update(_scripts())


def script_of(command: Sequence[bytes]) -> str:
    """The name of the script that a command runs, "" if it runs none."""
    return _known.get(command[1], UNKNOWN) if command[0] in (b"EVALSHA", b"EVAL") else ""


def kinds_of(commands: Sequence[Sequence[bytes]]) -> list[str]:
    """What a write to the network is, by the names of points; [] if faults pass it by."""
    first = commands[0]
    name = first[0]
    if name in (b"EVALSHA", b"EVAL"):
        script = script_of(first)
        if script != "commit":
            return [script]
        kinds: dict[str, None] = {}
        for command in commands:
            for place in range(3, len(command) - 1):
                argument = command[place]
                if len(argument) == 1:
                    if argument in _OPERATIONS and _ENTRY.fullmatch(command[place + 1]):
                        kinds[_OPERATIONS[argument]] = None
                    elif argument == b"e" and command[place + 1].isdigit():
                        kinds["emit"] = None
                    elif _begins_answers(command, place):
                        kinds["commit"] = None
        return list(kinds)
    if name == b"CLIENT":
        kind = _CLIENT.get(first[1])
    elif name == b"HMGET" and first[1].endswith(b"}:meta"):
        kind = "meta"
    else:
        kind = _COMMANDS.get(name)
    return [kind] if kind else []


def parts_of(command: Sequence[bytes]) -> list[tuple[bool, list[str]]]:
    """Of each part of a call of the commit script: whether it is sent again, and its kinds."""
    arguments = command[3 + int(command[2]) :]
    found: list[tuple[bool, list[str]]] = []
    at = 4
    for _ in range(int(arguments[0])):
        if arguments[at] != b"m":
            found.append((False, ["commit"]))  # one answer
            at += 4
            continue
        behind = at + 6 + int(arguments[at + 4])
        operations = (*command[:2], b"0", *arguments[at + 6 : behind])
        found.append((b"r" in arguments[at + 2], kinds_of([operations])))
        at = behind
    assert at == len(arguments), "the layout of the script's arguments has changed"
    return found


def _begins_answers(command: Sequence[bytes], place: int) -> bool:
    """Whether commits in one of the short forms begin here, and then the id of the first entry."""
    numbers, first = {
        b"a": ((1, 2), 3),  # a out count
        b"o": ((), 2),  # o token
        b"s": ((1, 2, 4), 5),  # s out state expected count
    }.get(command[place].lower(), ((), len(command)))
    first += place
    return (
        first < len(command)
        and all(command[place + one].isdigit() for one in numbers)
        and _ENTRY.fullmatch(command[first]) is not None
    )


def table(hits: Counter[str]) -> str:
    """Hits of each point, for people."""
    lines: list[str] = []
    for kind in KINDS:
        cells = [
            f"{point.split('.', 1)[1]} {hits[point]}"
            for point in CALL_POINTS
            if point.split(".")[0] == kind
        ]
        lines.append(f"{kind:>10}  " + "  ".join(cells))
    cells = [f"{what} {hits['world.' + what]}" for what in WORLD]
    lines.append(f"{'world':>10}  " + "  ".join(cells))
    return "\n".join(lines)
