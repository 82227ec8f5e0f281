"""Fleet: several workers under a steady load, and who of them owns what."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import cast

import msgpack
import redis

from wherry.config import DEFAULT_PARTITIONS
from wherry.model import Partition, partition_of

from .load import KEYS, STALL_S
from .process import WorkerProcess
from .space import DEFAULT, Space

SCOPES = 400
RATE = 150
_TICK_S = 0.1
_LOOK_S = 0.02


def owners(client: redis.Redis, space: Space = DEFAULT) -> list[int]:
    """Process id of each partition's owner, 0 without."""
    pipeline = client.pipeline(transaction=False)
    for lease in space.leases():
        pipeline.hget(lease, "owner")
    names = cast("list[bytes | None]", pipeline.execute())
    return [int(name.rsplit(b"-", 2)[1]) if name else 0 for name in names]


def epochs(client: redis.Redis) -> list[int]:
    """How often each partition was claimed."""
    pipeline = client.pipeline(transaction=False)
    for number in range(DEFAULT_PARTITIONS):
        pipeline.hget(KEYS.lease(Partition(number)), "epoch")
    return [int(one or 0) for one in cast("list[bytes | None]", pipeline.execute())]


def wait_for_balance(
    client: redis.Redis, workers: list[WorkerProcess], space: Space = DEFAULT
) -> None:
    """Return when these workers own all partitions and their shares differ by one at most."""
    pids = {one.pid for one in workers}
    until_s = time.monotonic() + STALL_S
    while True:
        counts = Counter(owners(client, space))
        if counts.keys() == pids and max(counts.values()) - min(counts.values()) <= 1:
            return
        for one in workers:
            one.check()
        if time.monotonic() > until_s:
            raise TimeoutError(f"the workers {sorted(pids)} do not come to shares: {dict(counts)}")
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def steady_load(client: redis.Redis) -> Iterator[None]:
    """Send `RATE` messages a second whose handlers take 5 to 50 ms; all are handled at the end."""
    choose = random.Random(1)
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(_TICK_S):
            pipeline = client.pipeline(transaction=False)
            for _ in range(int(RATE * _TICK_S)):
                scope = f"user-{choose.randrange(SCOPES)}"
                work = {"type": "bench.work", "work_s": choose.uniform(0.005, 0.05)}
                stream = KEYS.entries(partition_of(scope, DEFAULT_PARTITIONS))
                pipeline.xadd(stream, {"s": scope, "m": msgpack.packb(work)})
            pipeline.execute()

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    try:
        yield
    finally:
        stop.set()
        sending.join()
    wait_until_handled(client)


def make_idle(client: redis.Redis, scopes: int) -> None:
    """Let a worker handle one message of each scope, and rest."""
    pipeline = client.pipeline(transaction=False)
    for number in range(scopes):
        scope = f"user-{number}"
        stream = KEYS.entries(partition_of(scope, DEFAULT_PARTITIONS))
        message = msgpack.packb({"type": "bench.work", "work_s": 0})
        pipeline.xadd(stream, {"s": scope, "m": message})
    pipeline.execute()
    wait_until_handled(client)


def wait_until_handled(client: redis.Redis) -> None:
    """Return when no entry is left."""
    until_s = time.monotonic() + STALL_S
    while left := _backlog(client):
        if time.monotonic() > until_s:
            raise TimeoutError(f"{left} messages are not handled")
        time.sleep(_LOOK_S)


def _backlog(client: redis.Redis) -> int:
    pipeline = client.pipeline(transaction=False)
    for number in range(DEFAULT_PARTITIONS):
        pipeline.xlen(KEYS.entries(Partition(number)))
    return sum(cast("list[int]", pipeline.execute()))
