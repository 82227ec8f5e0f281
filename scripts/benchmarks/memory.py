"""Memory: what an idle instance of a one-loop application occupies in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import load
from .process import running_worker
from .store import BenchServer

_SIZE_BYTES = 200


def measure(server: BenchServer, directory: Path, instances: int) -> dict[str, Any]:
    """Give so many scopes one message each and compare the worker's memory with before."""
    client = server.client
    client.flushall()
    scopes = [f"user-{number}" for number in range(instances)]
    with running_worker(server.url, directory, "--max-applications", str(instances)) as worker:
        load.wait_for_partitions(client)
        empty_bytes = worker.resident_bytes()
        backlog = load.stage(client, scopes, instances, _SIZE_BYTES, load.input_stream)
        load.release(client, backlog)
        load.wait_until_finished(client, backlog, worker.check)
        full_bytes = worker.resident_bytes()
        load.verify(client, backlog, load.reply_stream, causes=True)
    each = (full_bytes - empty_bytes) / instances
    print(
        f"memory: {each:,.0f} bytes for each of {instances} idle instances, "
        f"above {empty_bytes / 2**20:.0f} MiB of an empty worker"
    )
    return {"instances": instances, "empty_bytes": empty_bytes, "bytes_per_instance": each}
