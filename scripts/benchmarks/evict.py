"""Evict: what it costs to replace an idle instance, in a small and in a large pool.

Measured twice: in a bare `StatelessServer`, where nothing else is in the way, and in a worker,
where each message comes for a scope that has no instance while the pool is full. Both count CPU
time, which other load on the machine spoils least.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from wherry import StatelessServer

from . import load
from .process import TICK_S, running_worker
from .store import BenchServer

ROUNDS = 5
_BATCH = 100
_SIZE_BYTES = 200


def measure(
    server: BenchServer, directory: Path, pools: Sequence[int], evictions: int
) -> dict[str, Any]:
    """Measure both pools in turn and print the ratio of large to small."""
    print(f"evict: {evictions} idle instances replaced one after another, {ROUNDS} times")
    bare: dict[int, list[float]] = {pool: [] for pool in pools}
    whole: dict[int, list[float]] = {pool: [] for pool in pools}
    for _ in range(ROUNDS):
        for pool in pools:  # in turn, so that both meet the same weather
            bare[pool].append(in_server(pool, evictions))
            whole[pool].append(in_worker(server, directory, pool, evictions))
    report: dict[str, Any] = {"evictions": evictions, "pools": list(pools)}
    small, large = pools
    for name, spent in (("server", bare), ("worker", whole)):
        costs = {pool: median(times) for pool, times in spent.items()}
        ratio = costs[large] / costs[small]
        figures = ", ".join(f"{1e6 * cost:.1f} us with {pool}" for pool, cost in costs.items())
        print(f"{name}: CPU {figures} instances; ratio {ratio:.2f}", flush=True)
        report[name] = {"us": [1e6 * cost for cost in costs.values()], "ratio": ratio}
    return report


def in_server(pool: int, evictions: int) -> float:
    """CPU seconds for each replacement in a `StatelessServer` whose pool is full.

    Without Python's collector of cycles, which walks over everything that lives: this is the
    pool's own cost. The worker is measured with it.
    """
    server = _Filled(pool, evictions)
    gc.disable()
    try:
        asyncio.run(server.arun())
    finally:
        gc.enable()
        gc.collect()
    return server.cost_s


class _Filled(StatelessServer):
    """Fills its pool, then asks for one new scope after another."""

    def __init__(self, pool: int, evictions: int) -> None:
        super().__init__(self._count, max_applications=pool)
        self.cost_s = 0.0
        self._pool_size = pool
        self._evictions = evictions
        self._handled = asyncio.Semaphore(0)

    async def _count(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()
            self._handled.release()

    async def handle(self) -> None:
        await self._serve(range(self._pool_size))
        started_s = time.process_time()
        await self._serve(range(self._pool_size, self._pool_size + self._evictions))
        self.cost_s = (time.process_time() - started_s) / self._evictions
        if len(self.application_instances) > self._pool_size:
            raise RuntimeError(f"{len(self.application_instances)} instances in the pool")

    async def _serve(self, scopes: range) -> None:
        for start in range(0, len(scopes), _BATCH):
            batch = scopes[start : start + _BATCH]
            for scope in batch:
                self.get_or_create_application_instance(scope, {"type": "bench"}).put_nowait(
                    {"type": "bench.message"}
                )
            for _ in batch:
                await self._handled.acquire()


def in_worker(server: BenchServer, directory: Path, pool: int, evictions: int) -> float:
    """The worker's CPU seconds for each message of a new scope, its pool being full."""
    client = server.client
    client.flushall()
    scopes = [f"user-{number}" for number in range(pool + evictions)]
    with running_worker(server.url, directory, "--max-applications", str(pool)) as worker:
        load.wait_for_partitions(client)
        for part in (scopes[:pool], scopes[pool:]):
            backlog = load.stage(client, part, len(part), _SIZE_BYTES, load.input_stream)
            started_s = worker.cpu_s()
            load.release(client, backlog)
            load.wait_until_finished(client, backlog, worker.check)
            spent_s = worker.cpu_s() - started_s
            load.verify(client, backlog, load.reply_stream, causes=True)
    return max(spent_s, TICK_S) / evictions
