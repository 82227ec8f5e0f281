"""Pace: messages appended at a steady rate, in ticks, and remembered as a `load.Load`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import redis

from .connection import connected
from .load import Load, payload

TICK_S = 0.01


def pace(
    client: redis.Redis,
    scopes: Iterable[str],
    rate: float,
    size_bytes: int,
    stream_of: Callable[[str], str],
) -> Load:
    """Send a message to each scope named, in this order; what is due goes in one write a tick.

    It is late where the machine is, and then sends what is due at once: the rate is kept.
    """
    data = payload(size_bytes)
    load = Load({}, data)
    names = list(scopes)
    streams = {scope: stream_of(scope) for scope in dict.fromkeys(names)}
    load.streams.update((stream, stream) for stream in streams.values())
    with connected(client) as connection:
        started_s = time.monotonic()
        number = 0
        while number < len(names):
            due = min(len(names), int((time.monotonic() - started_s) * rate) + 1)
            commands: list[tuple[Any, ...]] = []
            for place in range(number, due):
                scope = names[place]
                message = msgpack.packb({"type": "bench.echo", "n": place, "data": data})
                commands.append(("XADD", streams[scope], "*", "s", scope, "m", message))
            connection.write(commands)
            for place in range(number, due):
                load.sent.setdefault(names[place], []).append((connection.read(), place))
            number = due
            time.sleep(max(0.0, TICK_S - (time.monotonic() - started_s) % TICK_S))
    return load
