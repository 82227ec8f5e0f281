"""Scale: CPU for each message with more workers, more partitions, more scopes.

All fleets live beside each other, each in a namespace of its own, and are measured in turn: so all
meet the same weather. Each gets the same number of messages a second, half of what one worker
drains. Of many scopes a thousand, others each time, are spoken to within one window, one message
before it, so that it does not count that instances are created. What it costs if each message is
for a scope whose instance must be created again, beyond the cap, is measured apart.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import drain, fleet, load
from .pace import pace
from .process import WorkerProcess, running_worker
from .space import Space
from .spread import percentiles, spread
from .store import BenchServer

AXES: dict[str, tuple[int, ...]] = {
    "workers": (1, 2, 4, 8),
    "partitions": (1, 16, 64, 256),
    "scopes": (1, 1_000, 100_000, 1_000_000),
}
USUAL = {"workers": 1, "partitions": 64, "scopes": 1_000}
ACTIVE = 1_000
_SIZE_BYTES = 200
_CHUNK = 20_000


@dataclass(slots=True, kw_only=True)
class Point:
    """One fleet, and what was measured of it.

    Attributes:
        values: of each axis.
        space: its own.
        workers: running.
        is_created_anew: speak to all scopes instead of a thousand at a time.
        worker_us: CPU of its workers for each message, window by window.
        server_us: the same of the server.
        p50_ms: from the append of a message to that of its answer, window by window.
        p99_ms: the same of a hundred, which one exceeds.
    """

    values: dict[str, int]
    space: Space
    workers: list[WorkerProcess]
    is_created_anew: bool = False
    worker_us: list[float] = field(default_factory=lambda: [])
    server_us: list[float] = field(default_factory=lambda: [])
    p50_ms: list[float] = field(default_factory=lambda: [])
    p99_ms: list[float] = field(default_factory=lambda: [])

    def scopes(self, choose: random.Random) -> list[str]:
        """Those that are spoken to in a window."""
        count = self.values["scopes"]
        if self.is_created_anew:
            return [f"user-{number}" for number in range(count)]
        return [f"user-{number}" for number in choose.sample(range(count), min(count, ACTIVE))]

    def figures(self) -> dict[str, Any]:
        """What the report shows."""
        return {
            **self.values,
            "is_created_anew": self.is_created_anew,
            "worker_us": spread(self.worker_us),
            "server_us": spread(self.server_us),
            "p50_ms": spread(self.p50_ms),
            "p99_ms": spread(self.p99_ms),
        }


def measure(
    server: BenchServer,
    directory: Path,
    *,
    axes: dict[str, tuple[int, ...]],
    rate: int | None,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """Start all fleets, measure them in turn, and print each with its medians."""
    rate = rate or _half_of_capacity(server, directory)
    print(f"scale: {rate} messages a second, {rounds} windows of {seconds:g} s each")
    server.client.flushall()
    points: list[Point] = []
    choose = random.Random(1)
    with ExitStack() as stack:
        for values in _combinations(axes):
            point = _start(stack, server, directory, values)
            points.append(point)
            if values["scopes"] > ACTIVE:
                _meet(server, point)
                points.append(
                    Point(
                        values=values,
                        space=point.space,
                        workers=point.workers,
                        is_created_anew=True,
                    )
                )
        for _ in range(rounds):
            for point in points:
                _window(server, point, choose, int(rate * seconds), rate)
    for point in points:
        _tell(point)
    report: dict[str, Any] = {"rate": rate, "points": [point.figures() for point in points]}
    report["spans"] = {axis: _span(points, axis, axes[axis]) for axis in axes}
    for axis, span in report["spans"].items():
        print(f"{axis}: most to least CPU for a message {span:.2f}", flush=True)
    return report


def _half_of_capacity(server: BenchServer, directory: Path) -> int:
    names = [f"user-{number}" for number in range(USUAL["scopes"])]
    rounds = [
        drain.with_worker(server, directory, names, 40_000, _SIZE_BYTES, is_durable=False).rate
        for _ in range(3)
    ]
    return int(sorted(rounds)[1] / 2)


def _combinations(axes: dict[str, tuple[int, ...]]) -> list[dict[str, int]]:
    """The usual values, and for each axis each other value of it."""
    return [
        USUAL,
        *(
            USUAL | {axis: value}
            for axis, several in axes.items()
            for value in several
            if value != USUAL[axis]
        ),
    ]


def _start(stack: ExitStack, server: BenchServer, directory: Path, values: dict[str, int]) -> Point:
    name = "scale-" + "-".join(map(str, values.values()))
    space = Space(name, values["partitions"])
    workers = [
        stack.enter_context(running_worker(server.url, directory, *space.flags()))
        for _ in range(values["workers"])
    ]
    fleet.wait_for_balance(server.client, workers, space)
    return Point(values=values, space=space, workers=workers)


def _meet(server: BenchServer, point: Point) -> None:
    """Let the fleet handle one message of each scope."""
    count, space = point.values["scopes"], point.space
    for start in range(0, count, _CHUNK):
        names = [f"user-{number}" for number in range(start, min(start + _CHUNK, count))]
        met = load.stage(server.client, names, len(names), _SIZE_BYTES, space.input_stream)
        load.release(server.client, met)
        load.wait_until_finished(server.client, met, point.workers[0].check)
        load.verify(server.client, met, space.reply_stream, causes=True)


def _window(
    server: BenchServer, point: Point, choose: random.Random, count: int, rate: int
) -> None:
    """One window; it ends when everything is handled."""
    scopes = point.scopes(choose)
    if not point.is_created_anew:
        _speak(server, point, scopes, rate)
    targets = choose.choices(scopes, k=count)
    worker_cpu_s, server_cpu_s = _worker_cpu_s(point), server.cpu_s()
    sent = _speak(server, point, targets, rate)
    server_cpu_s = server.cpu_s() - server_cpu_s
    point.worker_us.append(1e6 * (_worker_cpu_s(point) - worker_cpu_s) / count)
    point.server_us.append(1e6 * server_cpu_s / count)
    load.verify(server.client, sent, point.space.reply_stream, causes=True, is_tail=True)
    figures = percentiles([spent_ms / 1000 for spent_ms in sent.spent_ms])
    point.p50_ms.append(figures["p50_ms"])
    point.p99_ms.append(figures["p99_ms"])


def _speak(server: BenchServer, point: Point, scopes: list[str], rate: int) -> load.Load:
    sent = pace(server.client, scopes, rate, _SIZE_BYTES, point.space.input_stream)
    load.wait_until_finished(server.client, sent, point.workers[0].check)
    return sent


def _worker_cpu_s(point: Point) -> float:
    return sum(worker.cpu_s() for worker in point.workers)


def _tell(point: Point) -> None:
    figures = point.figures()
    values = ", ".join(f"{value:,} {axis}" for axis, value in point.values.items())
    apart = " (each message creates its instance again)" if point.is_created_anew else ""
    worker, server = figures["worker_us"], figures["server_us"]
    print(
        f"{values}: workers {worker['median']:.1f} us ({worker['min']:.1f} to "
        f"{worker['max']:.1f}), redis {server['median']:.1f} us for each message; answered after "
        f"{figures['p50_ms']['median']:.0f} ms, p99 {figures['p99_ms']['median']:.0f} ms{apart}"
    )


def _span(points: list[Point], axis: str, values: tuple[int, ...]) -> float:
    """Most to least median CPU of workers and server together along an axis, from 1,000 scopes."""
    sums = [
        figures["worker_us"]["median"] + figures["server_us"]["median"]
        for point in points
        if not point.is_created_anew
        and point.values == USUAL | {axis: point.values[axis]}
        and point.values["scopes"] >= min(ACTIVE, max(values))
        for figures in [point.figures()]
    ]
    return max(sums) / min(sums)
