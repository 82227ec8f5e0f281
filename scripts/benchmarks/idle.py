"""Idle: what a worker costs that has nothing to do, without instances and with many idle ones.

Commands are those that it sends, by MONITOR: what its scripts call within the server is not among
them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import load
from .clustered import BenchCluster
from .process import WorkerProcess, running_worker
from .store import BenchServer
from .watching import Seen, watching

_SIZE_BYTES = 200
_SETTLE_S = 3.0
"""A moment for what comes after the last message: trimming, a late beat."""


def measure(
    server: BenchServer | BenchCluster, directory: Path, instances: int, seconds: float
) -> dict[str, Any]:
    """Let a worker be, before its first message and with so many instances."""
    client = server.client
    client.flushall()
    print(f"idle: {seconds:g} s with nothing to do, 64 partitions, {server.name}")
    with running_worker(server.url, directory, "--max-applications", str(instances)) as worker:
        load.wait_for_partitions(client)
        empty = _watch(server, worker, 0, seconds)
        scopes = [f"user-{number}" for number in range(instances)]
        backlog = load.stage(client, scopes, instances, _SIZE_BYTES, load.input_stream)
        load.release(client, backlog)
        load.wait_until_finished(client, backlog, worker.check)
        load.verify(client, backlog, load.reply_stream, causes=True)
        full = _watch(server, worker, instances, seconds)
    return {"seconds": seconds, "empty": empty, "full": full}


def _watch(
    server: BenchServer | BenchCluster, worker: WorkerProcess, instances: int, seconds: float
) -> dict[str, Any]:
    time.sleep(_SETTLE_S)
    worker_cpu_s, server_cpu_s = worker.cpu_s(), server.cpu_s()
    with ExitStack() as stack:
        seen = [stack.enter_context(watching(node)) for node in server.nodes]
        before, started_s = _sent(seen), time.monotonic()
        time.sleep(seconds)
        # What has come up to here; those who watch send a command of their own at the end.
        sent, spent_s = _sent(seen) - before, time.monotonic() - started_s
    worker_cpu_s = worker.cpu_s() - worker_cpu_s
    server_cpu_s = server.cpu_s() - server_cpu_s
    worker.check()
    figures = {
        "instances": instances,
        "commands_per_s": sent.total() / spent_s,
        "commands": dict(sent.most_common()),
        "worker_cpu_percent": 100 * worker_cpu_s / spent_s,
        "server_cpu_percent": 100 * server_cpu_s / spent_s,
    }
    names = ", ".join(f"{name} {count}" for name, count in sent.most_common())
    print(
        f"{instances:>6} idle instances: {figures['commands_per_s']:.2f} commands a second "
        f"({names}); CPU of the worker {figures['worker_cpu_percent']:.2f} %, "
        f"of what serves {figures['server_cpu_percent']:.2f} % of a core",
        flush=True,
    )
    return figures


def _sent(seen: Sequence[Seen]) -> Counter[str]:
    return sum((Counter(one.sent) for one in seen), Counter[str]())
