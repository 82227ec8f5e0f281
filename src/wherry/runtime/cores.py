"""Cores: what a thread gets of them, where the system tells."""

from __future__ import annotations

from ..engine.gathering import Usage

SCHEDSTAT = "/proc/thread-self/schedstat"


def own_usage() -> Usage:
    """That of the thread that asks; zeros where the system is not Linux, or does not say.

    Nanoseconds on a core, then of waiting for one: some 20 microseconds to read.
    https://docs.kernel.org/scheduler/sched-stats.html
    """
    try:
        with open(SCHEDSTAT, "rb") as file:
            ran_ns, waited_ns, _ = map(int, file.read().split())
    except (OSError, ValueError):
        return Usage(0.0, 0.0)
    return Usage(ran_ns / 1e9, waited_ns / 1e9)
