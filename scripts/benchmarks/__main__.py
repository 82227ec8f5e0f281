"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from wherry.config import Config
from wherry.errors import WherryError

from . import (
    drain,
    evict,
    followers,
    idle,
    loop,
    memory,
    micro,
    ownership,
    plot,
    rolling,
    roundtrip,
    scale,
    send,
)
from .clustered import BenchCluster, running_cluster
from .load import Mismatch
from .store import BenchServer, running_server

INTERRUPTED = 130
CLUSTERED = ("drain", "idle")
SCENARIOS = ["drain", "roundtrip", "send", "followers", "idle", "evict", "memory", "micro", "scale"]
SCENARIOS += ["handoff", "takeover", "exit", "scaling", "rolling", "respawn", "story"]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--server", metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE")
    for flag, value in {
        "--messages": 40_000,
        "--scopes": 1_000,
        "--size": 200,
        "--pairs": 5,
        "--trips": 2_000,
        "--followed": 10_000,
        "--rate": 1_000,
        "--seconds": 30,
        "--idle-instances": 10_000,
        "--evictions": 5_000,
        "--instances": 100_000,
        "--windows": 5,
        "--most-workers": 8,
        "--most-partitions": 256,
        "--most-scopes": 1_000_000,
        "--batches": 50,
        "--handoffs": 200,
        "--takeovers": 100,
        "--rounds": 10,
        "--restarts": 3,
        "--kills": 5,
        "--story": 60,
    }.items():
        parser.add_argument(flag, type=int, default=value, metavar="N")
    parser.add_argument("--paced", type=int, metavar="N")
    parser.add_argument("--window", type=float, default=4.0, metavar="S")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--durable", action="store_true")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--pools", type=int, nargs=2, default=[1_000, 10_000], metavar="N")
    options = parser.parse_args(arguments)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    if options.cluster and options.durable:
        parser.error("--durable is not measured on a cluster")
    if options.cluster and not {*options.scenarios} <= {*CLUSTERED}:
        parser.error(f"--cluster goes with {' and '.join(CLUSTERED)} only")
    numbers = [value for value in vars(options).values() if type(value) is int]
    if min([*numbers, *options.pools]) < 1 or options.window <= 0:
        parser.error("every number must be at least 1")
    if options.messages > options.scopes * Config().reply_length:
        parser.error("too many messages for so few scopes: their reply streams would be trimmed")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios and return the exit code."""
    options = parse(arguments)
    wanted = options.scenarios or (CLUSTERED if options.cluster else SCENARIOS)
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as directory:
        try:
            with contextlib.ExitStack() as stack:
                server = stack.enter_context(running_server(Path(directory), options.server))
                cluster = (
                    stack.enter_context(running_cluster(Path(directory), options.server))
                    if options.cluster
                    else None
                )
                report = run(server, Path(directory), wanted, options, cluster)
        except (Mismatch, RuntimeError, TimeoutError, WherryError, redis.RedisError) as error:
            print(f"scripts/bench: {error}", file=sys.stderr)
            return 1
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def run(
    server: BenchServer,
    directory: Path,
    wanted: Sequence[str],
    options: argparse.Namespace,
    cluster: BenchCluster | None = None,
) -> dict[str, Any]:
    """Run the scenarios on one server, or on a cluster beside it; print, return the figures."""
    report: dict[str, Any] = {
        "server": server.name,
        "python": platform.python_version(),
        "loop": loop.NAME,
    }
    print(f"server {server.name}, Python {report['python']}, {loop.NAME}, default settings")
    scenarios: dict[str, Callable[[], dict[str, Any]]] = {
        "drain": lambda: drain.measure(
            server,
            directory,
            messages=options.messages,
            scopes=options.scopes,
            size_bytes=options.size,
            pairs=options.pairs,
            is_durable=options.durable,
        ),
        "roundtrip": lambda: roundtrip.measure(
            server, directory, trips=options.trips, pairs=options.pairs
        ),
        "send": lambda: send.measure(
            server,
            messages=options.messages,
            scopes=options.scopes,
            size_bytes=options.size,
            pairs=options.pairs,
        ),
        "followers": lambda: followers.measure(
            server,
            directory,
            scopes=options.followed,
            rate=options.rate,
            seconds=options.seconds,
        ),
        "idle": lambda: idle.measure(server, directory, options.idle_instances, options.seconds),
        "evict": lambda: evict.measure(server, directory, options.pools, options.evictions),
        "memory": lambda: memory.measure(server, directory, options.instances),
        "scale": lambda: _scale(server, directory, options),
        "micro": lambda: micro.measure(options.batches),
        "handoff": lambda: ownership.handoff(server, directory, options.handoffs),
        "takeover": lambda: ownership.takeover(server, directory, options.takeovers),
        "exit": lambda: ownership.exits(server, directory, options.rounds),
        "scaling": lambda: ownership.scaling(server, directory, max(1, options.rounds // 3)),
        "rolling": lambda: rolling.rolling(server, directory, options.restarts),
        "respawn": lambda: rolling.respawn(server, directory, options.kills),
        "story": lambda: rolling.story(server, directory, options.story),
    }
    if cluster is not None:
        scenarios |= _clustered(server, cluster, directory, options)
    for name in wanted:
        print()
        report[name] = scenarios[name]()
    return report


def _clustered(
    server: BenchServer, cluster: BenchCluster, directory: Path, options: argparse.Namespace
) -> dict[str, Callable[[], dict[str, Any]]]:
    def idles() -> dict[str, Any]:
        places = {"cluster": cluster, "server": server}
        return {
            name: idle.measure(place, directory, options.idle_instances, options.seconds)
            for name, place in places.items()
        }

    return {
        "drain": lambda: drain.measure_cluster(
            server,
            cluster,
            directory,
            messages=options.messages,
            scopes=options.scopes,
            size_bytes=options.size,
            pairs=options.pairs,
        ),
        "idle": idles,
    }


def _scale(server: BenchServer, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    most = {
        "workers": options.most_workers,
        "partitions": options.most_partitions,
        "scopes": options.most_scopes,
    }
    axes = {
        axis: tuple(one for one in values if one <= most[axis])
        for axis, values in scale.AXES.items()
    }
    report = scale.measure(
        server,
        directory,
        axes=axes,
        rate=options.paced,
        seconds=options.window,
        rounds=options.windows,
    )
    if options.plot is not None:
        plot.write(options.plot, report, axes, scale.USUAL)
    return report


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nscripts/bench: interrupted; everything it started has ended", file=sys.stderr)
        sys.exit(INTERRUPTED)
