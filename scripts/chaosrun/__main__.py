"""Runs fleets under faults and says what was lost, doubled, reordered or wrong."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from .report import Report
from .rounds import Round, plan
from .running import Run

INTERRUPTED = 130


def main() -> int:
    """Parse, run, report; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--scopes", type=int, default=500)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--terms", type=int, default=5)
    parser.add_argument("--redis-kills", type=int, default=1)
    parser.add_argument("--scales", type=int, default=2)
    parser.add_argument("--network", type=int, default=2)
    parser.add_argument("--failovers", type=int, default=2)
    parser.add_argument(
        "--sentinel",
        action="store_true",
        help="one round on Redis Sentinel: its failovers, and workers killed and drained meanwhile",
    )
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="one round on a cluster: primaries killed, slots moved, and workers killed meanwhile",
    )
    parser.add_argument("--every", type=float, default=20.0)
    parser.add_argument(
        "--replicas",
        type=int,
        default=0,
        choices=(0, 1),
        help="with --sentinel or --cluster: a message is accepted when so many replicas have it",
    )
    parser.add_argument("--default-lease-faults", type=int, default=0)
    parser.add_argument("--lease", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--server", default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None)
    options = parser.parse_args()
    if options.workers < 2:
        parser.error("--workers: a fleet has at least 2")
    if options.scopes < 1 or options.messages < 1:
        parser.error("--messages and --scopes are at least 1")
    if options.sentinel and options.cluster:
        parser.error("--sentinel and --cluster are two runs")
    if options.replicas and not (options.sentinel or options.cluster):
        parser.error("--replicas goes with --sentinel or --cluster")
    _end_as_by_control_c()
    rounds = plan(options)
    report = Report(options.seed)
    with tempfile.TemporaryDirectory(prefix="wherry-chaos-") as scratch:
        for round_ in rounds:
            _run(round_, Path(scratch), options, report)
    print(report.text())
    if options.json is not None:
        options.json.write_text(report.json(), encoding="utf-8")
    return 0 if report.is_good else 1


def _end_as_by_control_c() -> None:
    """Let every signal that ends a run cancel it: servers and workers go, and what they wrote.

    `asyncio.run` cancels its main task for SIGINT only, and only in place of Python's own handler.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def _run(round_: Round, scratch: Path, options: argparse.Namespace, report: Report) -> None:
    print(
        f"{round_.name}: {round_.messages:,} messages, {round_.workers} workers, "
        f"lease {round_.lease_s:g} s, seed {round_.seed}",
        flush=True,
    )
    directory = scratch / round_.name
    run = Run(round_, directory, options.server)
    is_good = False
    try:
        outcome = asyncio.run(run.run())
        report.add(round_, outcome)
        is_good = outcome.findings.is_good
    finally:
        if not is_good and options.keep is not None:
            run.dump(directory)
            shutil.copytree(directory, options.keep / round_.name, dirs_exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
