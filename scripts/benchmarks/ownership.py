"""Ownership: how long a partition is without an owner that reads, and how often it moves.

Workers are the shipped ``wherry run`` with the default settings and under load; instants are those
of the server's commands (see `watching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import fleet
from .process import WorkerProcess, running_worker
from .spread import percentiles
from .store import BenchServer
from .watching import Seen, watching


def handoff(server: BenchServer, directory: Path, wanted: int) -> dict[str, Any]:
    """SIGTERM of one of two workers: from each release to the other's first read."""
    client = server.client
    client.flushall()
    gaps_s: list[float] = []
    with ExitStack() as stack:
        old = _start(stack, server, directory)
        with fleet.steady_load(client):
            while len(gaps_s) < wanted:
                new = _start(stack, server, directory)
                fleet.wait_for_balance(client, [old, new])
                with watching(server) as seen:
                    old.stop()
                    fleet.wait_for_balance(client, [new])
                    gaps_s += _gaps(seen)
                old = new
    return _told("handoff: from a release to the new owner's first read", gaps_s)


def _gaps(seen: Seen) -> list[float]:
    gaps_s: list[float] = []
    for at_s, partition in seen.released:
        read_s = seen.wait_for_read(partition, at_s)
        if read_s is None:
            raise RuntimeError(f"partition {partition} was released and not read again")
        gaps_s.append(read_s - at_s)
    return gaps_s


def takeover(server: BenchServer, directory: Path, wanted: int) -> dict[str, Any]:
    """SIGKILL of one of two workers: from the kill to the other's first read of each partition."""
    client = server.client
    client.flushall()
    gaps_s: list[float] = []
    with ExitStack() as stack:
        old = _start(stack, server, directory)
        with fleet.steady_load(client):
            while len(gaps_s) < wanted:
                new = _start(stack, server, directory)
                fleet.wait_for_balance(client, [old, new])
                lost = [part for part, pid in enumerate(fleet.owners(client)) if pid == old.pid]
                with watching(server) as seen:
                    killed_s = server.now_s()
                    old.kill()
                    fleet.wait_for_balance(client, [new])
                    for partition in lost:
                        read_s = seen.wait_for_read(partition, killed_s + 0.05)
                        if read_s is None:
                            raise RuntimeError(f"partition {partition} was not taken over")
                        gaps_s.append(read_s - killed_s)
                old = new
    return _told("takeover: from a SIGKILL to the new owner's first read", gaps_s)


def scaling(server: BenchServer, directory: Path, rounds: int) -> dict[str, Any]:
    """Three workers join one that is under load: how often each partition moves."""
    client = server.client
    most, moves, needed = 0, 0, 0
    for _ in range(rounds):
        client.flushall()
        with ExitStack() as stack:
            first = _start(stack, server, directory)
            with fleet.steady_load(client):
                fleet.wait_for_balance(client, [first])
                before = fleet.epochs(client)
                others = [
                    stack.enter_context(running_worker(server.url, directory, application="work"))
                    for _ in range(3)
                ]
                fleet.wait_for_balance(client, [first, *others])
            each = [b - a for a, b in zip(before, fleet.epochs(client), strict=True)]
            most, moves = max(most, *each), moves + sum(each)
            needed += sum(pid != first.pid for pid in fleet.owners(client))
    print(
        f"scaling 1 to 4 workers, {rounds} times: {moves} moves, {needed} needed; "
        f"no partition moved more than {most} times",
        flush=True,
    )
    return {"rounds": rounds, "moves": moves, "needed": needed, "most": most}


def exits(server: BenchServer, directory: Path, rounds: int) -> dict[str, Any]:
    """SIGTERM of a worker with 1,000 idle instances: until its process is gone."""
    client = server.client
    spent_s: list[float] = []
    for _ in range(rounds):
        client.flushall()
        with ExitStack() as stack:
            worker = _start(stack, server, directory)
            fleet.wait_for_balance(client, [worker])
            fleet.make_idle(client, 1_000)
            spent_s.append(worker.stop())
    return _told("exit: of a worker with 1,000 idle instances, from SIGTERM", spent_s)


def _start(stack: ExitStack, server: BenchServer, directory: Path) -> WorkerProcess:
    worker = stack.enter_context(running_worker(server.url, directory, application="work"))
    worker.wait_ready()
    return worker


def _told(what: str, spent_s: Sequence[float]) -> dict[str, Any]:
    figures = percentiles(spent_s)
    print(
        f"{what}, {figures['count']} times: p50 {figures['p50_ms']:.1f} ms, "
        f"p99 {figures['p99_ms']:.1f} ms, longest {figures['max_ms']:.1f} ms",
        flush=True,
    )
    return figures
