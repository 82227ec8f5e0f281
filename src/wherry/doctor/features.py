"""Features: what the server can do, asked of it and not guessed from a version."""

from __future__ import annotations

import time
from typing import Any, cast

from ..broker.link import Link
from ..errors import StoreError, StoreRefused
from .finding import Finding, error, note, ok, warning
from .rights import ROLES

_ALLOW_OOM = "#!lua flags=allow-oom,no-writes\nreturn 1"  # a replica runs it, too
_TRIES = 5
_SLOW_S = 0.02
_CLOCKS_APART_S = 1.0


async def examine_features(link: Link) -> list[Finding]:
    """Which commands and which kinds of scripts the server knows.

    Raises:
        StoreUnavailable: it does not answer.
    """
    findings: list[Finding] = []
    names = sorted({one.partition("|")[0] for role in ROLES.values() for one in role.commands})
    try:
        answer = cast("list[Any]", await link.call("COMMAND", "INFO", *names))
    except (StoreRefused, StoreError):
        findings.append(note("features", "which commands it knows this user may not ask"))
    else:
        lacking = [name for name, known in zip(names, answer, strict=True) if not known]
        if lacking:
            text = f"the server does not know {', '.join(lacking)}"
            remedy = "use Redis 6.2 or newer, or Valkey, and rename no commands"
            findings.append(error("features", text, remedy))
        else:
            findings.append(ok("features", "all commands that Wherry uses are there"))
    try:
        await link.call("EVAL", _ALLOW_OOM, 0)
    except StoreRefused:
        findings.append(note("scripts", "which scripts it takes this user may not ask"))
    except StoreError:
        findings.append(
            note(
                "scripts",
                "scripts cannot ask to run at the memory limit: there workers cannot commit "
                "either, which would free memory",
                "use Redis 7.0 or newer, or watch its memory closely",
            )
        )
    else:
        findings.append(ok("scripts", "workers may commit at the memory limit"))
    return findings


async def examine_clock(link: Link) -> list[Finding]:
    """How far away the server is, and how far its clock is from this machine's.

    Raises:
        StoreUnavailable: it does not answer.
        StoreRefused: it may not be asked for its time.
    """
    best: tuple[float, float] | None = None
    for _ in range(_TRIES):
        before_s, began_s = time.time(), time.monotonic()
        seconds, microseconds = await link.call("TIME")
        took_s = time.monotonic() - began_s
        apart_s = int(seconds) + int(microseconds) / 1e6 - before_s - took_s / 2
        if best is None or took_s < best[0]:
            best = took_s, apart_s
    assert best is not None
    return [_judge_distance(best[0]), _judge_clock(best[1], uncertain_s=best[0] / 2)]


def _judge_distance(took_s: float) -> Finding:
    text = f"answers in {took_s * 1000:.1f} ms"
    if took_s > _SLOW_S:
        return note(
            "distance",
            f"{text}: each message of a scope waits that long for the one before it",
            "run workers near Redis",
        )
    return ok("distance", text)


def _judge_clock(apart_s: float, *, uncertain_s: float) -> Finding:
    if abs(apart_s) - uncertain_s <= _CLOCKS_APART_S:
        return ok("clock", f"Redis' clock is {apart_s * 1000:+.0f} ms from this machine's")
    return warning(
        "clock",
        f"Redis' clock is {apart_s:+.1f} s from this machine's: messages sent from here with a "
        "time limit expire that much earlier or later",
        "let both machines set their clocks by NTP; leases do not depend on it",
    )
