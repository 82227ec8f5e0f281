"""Drain: how fast a backlog is worked off, beside the yardstick in the same minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import load, yardstick
from .clustered import BenchCluster
from .cores import keep_apart
from .process import TICK_S, running_worker
from .spread import spread, told
from .store import BenchServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One backlog worked off.

    Attributes:
        messages: how many.
        duration_s: from the instant at which they could be read to the last answer.
        worker_cpu_s: user and system time of the Python process meanwhile.
        server_cpu_s: the same of the server.
    """

    messages: int
    duration_s: float
    worker_cpu_s: float
    server_cpu_s: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.duration_s

    def figures(self) -> dict[str, float]:
        """What the report shows."""
        return asdict(self) | {
            "messages_per_s": self.rate,
            "worker_cpu_us": 1e6 * self.worker_cpu_s / self.messages,
            "server_cpu_us": 1e6 * self.server_cpu_s / self.messages,
        }


def measure(
    server: BenchServer,
    directory: Path,
    *,
    messages: int,
    scopes: int,
    size_bytes: int,
    pairs: int,
    is_durable: bool = False,
) -> dict[str, Any]:
    """Run the pairs, who begins changing from pair to pair, and print them as they come.

    With durable state each message also changes what is kept for its scope; the loop has nothing
    of the kind and stays as it is.
    """
    names = [f"user-{number}" for number in range(scopes)]
    state = ", with durable state" if is_durable else ""
    print(f"drain: {messages} echo messages of {size_bytes} bytes over {scopes} scopes{state}")
    print(f"{'pair':>4}  {'wherry run':^31}  {'bare loop':^31}  ratio")
    head = f"{'messages/s':>11}{'worker us':>10}{'redis us':>10}"
    print(f"{'':>4}  {head}  {head}", flush=True)
    runs: dict[str, Callable[[], Round]] = {
        "worker": lambda: with_worker(
            server, directory, names, messages, size_bytes, is_durable=is_durable
        ),
        "yardstick": lambda: with_yardstick(server, names, messages, size_bytes),
    }
    results: list[tuple[Round, Round]] = []
    for pair in range(pairs):
        order = ("worker", "yardstick") if pair % 2 == 0 else ("yardstick", "worker")
        rounds = {name: runs[name]() for name in order}
        ours, bare = rounds["worker"], rounds["yardstick"]
        results.append((ours, bare))
        ratio = ours.rate / bare.rate
        print(f"{pair + 1:>4}  {_columns(ours)}  {_columns(bare)}  {ratio:5.2f}", flush=True)
    ratio = spread([ours.rate / bare.rate for ours, bare in results])
    cpu_ratio = _cpu_ratio(results)
    print(f"ratio of the rates: {told(ratio)}; every reply is right")
    print(f"CPU of both processes for a message, to the loop's: {told(cpu_ratio)}", flush=True)
    return {
        "messages": messages,
        "scopes": scopes,
        "size_bytes": size_bytes,
        "is_durable": is_durable,
        "pairs": [{"worker": o.figures(), "yardstick": b.figures()} for o, b in results],
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
    }


def measure_cluster(
    server: BenchServer,
    cluster: BenchCluster,
    directory: Path,
    *,
    messages: int,
    scopes: int,
    size_bytes: int,
    pairs: int,
) -> dict[str, Any]:
    """The worker on a cluster beside the same on one server, who begins changing likewise."""
    names = [f"user-{number}" for number in range(scopes)]
    print(f"drain: {messages} echo messages of {size_bytes} bytes over {scopes} scopes")
    print(f"{'pair':>4}  {'cluster, ' + cluster.name:^31}  {'one server':^31}  CPU")
    head = f"{'messages/s':>11}{'worker us':>10}{'redis us':>10}"
    print(f"{'':>4}  {head}  {head}", flush=True)
    results: list[tuple[Round, Round]] = []
    for pair in range(pairs):
        order = (cluster, server) if pair % 2 == 0 else (server, cluster)
        rounds = [
            with_worker(one, directory, names, messages, size_bytes, is_durable=False)
            for one in order
        ]
        spread_, single = rounds if order[0] is cluster else rounds[::-1]
        results.append((spread_, single))
        ratio = _cpu_ratio(results[-1:])["median"]
        print(f"{pair + 1:>4}  {_columns(spread_)}  {_columns(single)}  {ratio:5.2f}", flush=True)
    cpu_ratio = _cpu_ratio(results)
    worker_ratio = spread([a.worker_cpu_s / max(TICK_S, b.worker_cpu_s) for a, b in results])
    print(f"CPU of worker and servers for a message, to that on one: {told(cpu_ratio)}")
    print(f"CPU of the worker alone: {told(worker_ratio)}; every reply is right", flush=True)
    return {
        "messages": messages,
        "scopes": scopes,
        "size_bytes": size_bytes,
        "pairs": [{"cluster": a.figures(), "server": b.figures()} for a, b in results],
        "cpu_ratio": cpu_ratio,
        "worker_cpu_ratio": worker_ratio,
    }


def _columns(one: Round) -> str:
    figures = one.figures()
    return (
        f"{figures['messages_per_s']:>11,.0f}{figures['worker_cpu_us']:>10.1f}"
        f"{figures['server_cpu_us']:>10.1f}"
    )


def _cpu_ratio(results: list[tuple[Round, Round]]) -> dict[str, float]:
    """CPU of both processes for a message, ours by the yardstick's."""
    return spread(
        [
            (ours.worker_cpu_s + ours.server_cpu_s)
            / max(TICK_S, bare.worker_cpu_s + bare.server_cpu_s)
            for ours, bare in results
        ]
    )


def with_worker(
    server: BenchServer | BenchCluster,
    directory: Path,
    scopes: list[str],
    messages: int,
    size_bytes: int,
    *,
    is_durable: bool,
) -> Round:
    """Let a new ``wherry run`` drain; its start does not count, making its instances does."""
    server.client.flushall()
    flags = ("--durable-state",) if is_durable else ()
    application = "tally" if is_durable else "echo"
    with running_worker(server.url, directory, *flags, application=application) as worker:
        load.wait_for_partitions(server.client)
        keep_apart(server, worker.pid)
        backlog = load.stage(server.client, scopes, messages, size_bytes, load.input_stream)
        worker_cpu_s, server_cpu_s = worker.cpu_s(), server.cpu_s()
        started_s = load.release(server.client, backlog)
        load.wait_until_finished(server.client, backlog, worker.check)
        worker_cpu_s = worker.cpu_s() - worker_cpu_s
        server_cpu_s = server.cpu_s() - server_cpu_s
        ended_s = load.verify(server.client, backlog, load.reply_stream, causes=True)
        if is_durable:
            load.verify_states(server.client, backlog)
    return Round(
        messages=messages,
        duration_s=ended_s - started_s,
        worker_cpu_s=worker_cpu_s,
        server_cpu_s=server_cpu_s,
    )


def with_yardstick(server: BenchServer, scopes: list[str], messages: int, size_bytes: int) -> Round:
    """Let the bare loop drain the same messages from one stream."""
    server.client.flushall()
    with yardstick.running_yardstick(server.url, messages) as loop:
        keep_apart(server, loop.pid)
        backlog = load.stage(
            server.client, scopes, messages, size_bytes, lambda _: yardstick.STREAM
        )
        load.release(server.client, backlog)
        server.client.xgroup_create(yardstick.STREAM, yardstick.GROUP, id="0")
        server_cpu_s = server.cpu_s()
        started_s = server.now_s()
        loop.start()
        worker_cpu_s = loop.wait_cpu_s()
        server_cpu_s = server.cpu_s() - server_cpu_s
        ended_s = load.verify(server.client, backlog, yardstick.reply_stream, causes=False)
    return Round(
        messages=messages,
        duration_s=ended_s - started_s,
        worker_cpu_s=worker_cpu_s,
        server_cpu_s=server_cpu_s,
    )
