"""What a test changes in its process it puts back: others run there after it.

A test that leaves one of these changed fails at its end: environment, working directory, import
path, signal handlers, loggers that were switched off, the level and handlers of our own, clocks and
tokens (the simulation replaces them), whether garbage is collected.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Generator, Mapping

import pytest

OURS = "wherry"
_BEFORE = pytest.StashKey[Mapping[str, object]]()


def look() -> Mapping[str, object]:
    """What is shared by all tests of a process, by the name that a failure gives it."""
    loggers = logging.root.manager.loggerDict.items()
    known = {name: one for name, one in loggers if isinstance(one, logging.Logger)}
    # pytest says here which test runs.
    environment = {name: value for name, value in os.environ.items() if "PYTEST_" not in name}
    ours = logging.getLogger(OURS)
    return {
        "the environment": environment,
        "the working directory": os.getcwd(),
        "the import path": list(sys.path),
        "signal handlers": {number: signal.getsignal(number) for number in signal.Signals},
        "which loggers are off": {name for name, one in known.items() if one.disabled},
        f"the logger {OURS}": (ours.level, ours.propagate, list(ours.handlers)),
        "clocks": (time.time, time.time_ns, time.monotonic, time.monotonic_ns),
        "tokens": secrets.token_hex,
        "task groups": asyncio.TaskGroup.__init__,
        "whether garbage is collected": gc.isenabled(),
    }


def compare(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Compare two looks.

    Raises:
        AssertionError: they differ.
    """
    changed = [name for name in after if before[name] != after[name]]
    told = "\n".join(f"  {name}: {before[name]!r} -> {after[name]!r}" for name in changed)
    assert not changed, f"the test left changed what others share:\n{told}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.stash[_BEFORE] = look()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    yield
    compare(item.stash[_BEFORE], look())
