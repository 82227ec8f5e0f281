"""A worker's memory is bounded by its settings, not by the number of scopes it has met."""

from __future__ import annotations

from pathlib import Path

import redis

from scripts.benchmarks import load
from scripts.benchmarks.process import running_worker
from tests.servers import Server

MAX_APPLICATIONS = 1_000
PART, ALL = 20_000, 160_000
KEPT_BYTES = 75
"""For each scope; its id alone, in a set, takes 110.

Once, sooner or later, the process takes four megabytes more in one step, and then no more.
"""
SIZE_BYTES = 200


def test_memory_does_not_grow_with_the_scopes_ever_seen(redis_server: Server, tmp_path: Path):
    """Each scope gets one message: 159,000 instances are ended to make room for others."""
    scopes = [f"user-{number}" for number in range(ALL)]
    flags = ("--max-applications", str(MAX_APPLICATIONS))
    with (
        redis.Redis(port=redis_server.port, protocol=2) as client,
        running_worker(redis_server.url, tmp_path, *flags) as worker,
    ):
        resident: list[int] = []
        for start in range(0, ALL, PART):
            part = scopes[start : start + PART]
            backlog = load.stage(client, part, len(part), SIZE_BYTES, load.input_stream)
            load.release(client, backlog)
            load.wait_until_finished(client, backlog, worker.check)
            resident.append(worker.resident_bytes())
            # One answer for each scope, to its message: none is missing, none doubled.
            load.verify(client, backlog, load.reply_stream, causes=True)
        _, early, *_, late = resident  # the first part has not seen a full window yet
        met = ALL - 2 * PART
        assert late - early < KEPT_BYTES * met, f"grew from {early:,} to {late:,} bytes"
