"""What a thread gets of its cores is told by the system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wherry.engine.gathering import Usage
from wherry.runtime import cores

LIMIT_S = 30.0


def spin() -> None:
    sum(range(10_000))


WHERE_TOLD = pytest.mark.skipif(not cores.own_usage().ran_s, reason="the system does not tell")


@WHERE_TOLD
def test_thread_that_shares_a_core_waits_for_it():
    found: list[Usage] = []

    def share_core() -> None:
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
        before = cores.own_usage()
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            try:
                until_s = time.monotonic() + LIMIT_S
                while time.monotonic() < until_s:
                    spin()
                    now = cores.own_usage()
                    if now.waited_s - before.waited_s > 0.02 and now.ran_s - before.ran_s > 0.02:
                        found.append(now)
                        return
            finally:
                other.kill()

    thread = threading.Thread(target=share_core)
    thread.start()
    thread.join()
    assert found


@WHERE_TOLD
def test_usage_is_that_of_the_thread_that_asks():
    until_ran_s = cores.own_usage().ran_s + 0.02
    while cores.own_usage().ran_s < until_ran_s:
        spin()
    found: list[Usage] = []
    thread = threading.Thread(target=lambda: found.append(cores.own_usage()))
    thread.start()
    thread.join()
    assert found[0].ran_s < 0.02, "it has only just begun"


@pytest.mark.parametrize("contents", [None, "", "1 2", "many turns"])
def test_nothing_is_told_where_there_is_nobody_to_ask(
    contents: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on other systems, and in sandboxes that hide what stands there."""
    file = tmp_path / "schedstat"
    if contents is not None:
        file.write_text(contents)
    monkeypatch.setattr(cores, "SCHEDSTAT", str(file))
    assert cores.own_usage() == Usage(0.0, 0.0)
