"""A cluster for the benchmarks: three primaries, without persistence like the one server beside it.

They have no replicas, as that one has none: what replication costs is another question.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import redis

from ..clustering import HOST, OPTIONS, Cluster, find_port
from .store import BenchServer, running_server

PRIMARIES = 3
_OPTIONS = (*OPTIONS, "--cluster-node-timeout", "15000")


@dataclass(frozen=True, slots=True)
class _Node:
    """What `Cluster` wants to know of a node that runs until the end."""

    port: int
    password: str | None = None
    is_live: bool = True

    def start(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCluster:
    """A running cluster, to be used like a `BenchServer`.

    Attributes:
        url: for workers.
        client: for the benchmark itself; it finds each key.
        name: what its nodes say of themselves.
        nodes: its servers.
    """

    url: str
    client: redis.Redis
    name: str
    nodes: Sequence[BenchServer]

    def cpu_s(self) -> float:
        """User and system time of all servers so far, in seconds."""
        return sum(node.cpu_s() for node in self.nodes)

    def now_s(self) -> float:
        """Unix time by the servers' clock, which is the machine's, in seconds."""
        return self.nodes[0].now_s()


@contextlib.contextmanager
def running_cluster(directory: Path, binary: str | None) -> Iterator[BenchCluster]:
    """Run a cluster until the end of the block."""
    with contextlib.ExitStack() as stack:
        ports = [find_port() for _ in range(PRIMARIES)]
        nodes: list[BenchServer] = []
        for port in ports:
            place = directory / f"node-{port}"
            place.mkdir()
            nodes.append(stack.enter_context(running_server(place, binary, _OPTIONS, port)))
        cluster = Cluster([_Node(port) for port in ports])
        cluster.form(PRIMARIES)
        client = redis.RedisCluster(HOST, ports[0], protocol=2, socket_timeout=30.0)
        stack.callback(client.close)
        yield BenchCluster(
            url=f"redis+cluster://{cluster.places}",
            client=cast("redis.Redis", client),  # has what is used of one
            name=f"{PRIMARIES} times {nodes[0].name}",
            nodes=nodes,
        )
