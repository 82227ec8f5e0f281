"""Followers: one client follows many scopes while replies come at a steady rate.

Connections are those that the server lists; latencies are those of `following`: from the time in
a reply's id, and from the time in that of the message, to the follower's hand.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import redis

from . import load
from .following import Taken, running_followers
from .load import Load
from .pace import pace
from .process import cpu_s, running_worker
from .spread import percentiles
from .store import BenchServer

_SIZE_BYTES = 200
_WARMING_S = 2
"""A new connection looks once whether it reads from the server that was read before."""


def measure(
    server: BenchServer, directory: Path, *, scopes: int, rate: int, seconds: int
) -> dict[str, Any]:
    """Follow so many scopes; send to random ones of them; the worker echoes."""
    client = server.client
    client.flushall()
    print(f"followers: {scopes} scopes in one client, {rate} replies a second for {seconds} s")
    names = [f"user-{number}" for number in range(scopes)]
    with running_worker(server.url, directory) as worker:
        load.wait_for_partitions(client)
        first = load.stage(client, names, scopes, _SIZE_BYTES, load.input_stream)
        load.release(client, first)
        load.wait_until_finished(client, first, worker.check)
        others = _connections(client)
        with running_followers(server.url, scopes) as following:
            following.wait_ready()
            choose = random.Random(1)
            warming = choose.choices(names, k=rate * _WARMING_S)
            warm = pace(client, warming, rate, _SIZE_BYTES, load.input_stream)
            verify(warm, following.await_replies(warm.count))
            targets = choose.choices(names, k=rate * seconds)
            before_s = [cpu_s(following.pid), worker.cpu_s(), server.cpu_s()]
            sent = pace(client, targets, rate, _SIZE_BYTES, load.input_stream)
            taken = following.await_replies(sent.count)
            after_s = [cpu_s(following.pid), worker.cpu_s(), server.cpu_s()]
            connections = _connections(client) - others
    verify(sent, taken)
    spent_us = [1e6 * (b - a) / sent.count for a, b in zip(before_s, after_s, strict=True)]
    figures = {
        "scopes": scopes,
        "replies": sent.count,
        "replies_per_s": rate,
        "connections": connections,
        "from_reply": percentiles([one[2] / 1000 for one in taken]),
        "from_message": percentiles([one[3] / 1000 for one in taken]),
        "client_cpu_us": spent_us[0],
        "worker_cpu_us": spent_us[1],
        "server_cpu_us": spent_us[2],
    }
    _tell(figures)
    return figures


def _connections(client: redis.Redis) -> int:
    return len(cast("list[Any]", client.client_list()))


def verify(sent: Load, taken: list[Taken]) -> None:
    """Check that each follower has taken the reply to each message once, in order.

    Raises:
        Mismatch: says where.
    """
    found: dict[str, list[int]] = {}
    for scope, number, *_ in taken:
        found.setdefault(scope, []).append(number)
    for scope, entries in sent.sent.items():
        wanted = [number for _, number in entries]
        if found.pop(scope, []) != wanted:
            raise load.Mismatch(f"scope {scope}: its follower has not taken each reply, in order")
    if found:
        raise load.Mismatch(f"scope {next(iter(found))}: a reply to nothing")


def _tell(figures: dict[str, Any]) -> None:
    for name, what in (("from_reply", "its writing"), ("from_message", "that of its message")):
        one = figures[name]
        print(
            f"a reply is in the follower's hand after {what}: p50 {one['p50_ms']:.1f} ms, "
            f"p99 {one['p99_ms']:.1f} ms, longest {one['max_ms']:.1f} ms"
        )
    print(
        f"{figures['connections']} connections; CPU for each reply: client "
        f"{figures['client_cpu_us']:.0f} us, worker {figures['worker_cpu_us']:.0f} us, "
        f"server {figures['server_cpu_us']:.0f} us; every reply is right",
        flush=True,
    )
