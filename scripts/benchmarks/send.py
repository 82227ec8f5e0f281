"""Send: how fast a client appends messages, beside a bare pipeline of XADDs in turn.

Both get the same dicts and pack them. The bare pipeline is that of redis-py's blocking client, a
thousand XADDs at a time into one stream: it knows no partitions, no bound of the backlog and no
limits of a message. No worker runs, so that every entry can be looked at afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import msgpack
import redis

from wherry import Client
from wherry.config import DEFAULT_PARTITIONS
from wherry.model import Partition

from . import load, yardstick
from .loop import new_loop
from .relay import relaying
from .spread import spread, told
from .store import BenchServer

AT_ONCE = 1_000
_BATCH = 1_000

Item = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One round.

    Attributes:
        messages_per_s: appended and known to be.
        client_cpu_us: user and system time of the client for each message.
        server_cpu_us: the same of the server.
    """

    messages_per_s: float
    client_cpu_us: float
    server_cpu_us: float


def measure(
    server: BenchServer, *, messages: int, scopes: int, size_bytes: int, pairs: int
) -> dict[str, Any]:
    """Run the pairs, who begins changing from pair to pair, and print them as they come."""
    data = load.payload(size_bytes)
    items = [
        (f"user-{number % scopes}", {"type": "bench.echo", "n": number, "data": data})
        for number in range(messages)
    ]
    print(f"send: {messages} messages of {size_bytes} bytes to {scopes} scopes")
    print(f"{'pair':>4}  {'send_many':^31}  {'bare pipeline':^31}  ratio")
    head = f"{'messages/s':>11}{'client us':>10}{'redis us':>10}"
    print(f"{'':>4}  {head}  {head}", flush=True)
    runs: dict[str, Callable[[], Sending]] = {
        "send_many": lambda: with_client(server, items),
        "pipeline": lambda: with_pipeline(server, items),
    }
    rounds: list[dict[str, Sending]] = []
    for pair in range(pairs):
        order = list(runs) if pair % 2 == 0 else list(reversed(runs))
        found = {name: runs[name]() for name in order}
        rounds.append(found)
        ratio = found["send_many"].messages_per_s / found["pipeline"].messages_per_s
        columns = "  ".join(_columns(found[name]) for name in runs)
        print(f"{pair + 1:>4}  {columns}  {ratio:5.2f}", flush=True)
    ratio = spread(
        [one["send_many"].messages_per_s / one["pipeline"].messages_per_s for one in rounds]
    )
    print(f"ratio of the rates: {told(ratio)}; every entry is right", flush=True)
    trips = count_trips(server)
    print(f"{AT_ONCE} send() calls at once: {trips} round trips", flush=True)
    return {
        "messages": messages,
        "pairs": [{name: asdict(one) for name, one in found.items()} for found in rounds],
        "ratio": ratio,
        "trips": trips,
    }


def _columns(one: Sending) -> str:
    return f"{one.messages_per_s:>11,.0f}{one.client_cpu_us:>10.1f}{one.server_cpu_us:>10.1f}"


class _Clock:
    """From its making to `read`: time, and CPU time of this process and of the server."""

    def __init__(self, server: BenchServer, messages: int) -> None:
        self._server = server
        self._messages = messages
        self._server_cpu_s = server.cpu_s()
        self._cpu_s = time.process_time()
        self._at_s = time.perf_counter()

    def read(self) -> Sending:
        spent_s = time.perf_counter() - self._at_s
        cpu_s = time.process_time() - self._cpu_s
        return Sending(
            messages_per_s=self._messages / spent_s,
            client_cpu_us=1e6 * cpu_s / self._messages,
            server_cpu_us=1e6 * (self._server.cpu_s() - self._server_cpu_s) / self._messages,
        )


def with_client(server: BenchServer, items: list[Item]) -> Sending:
    """Send by `Client.send_many`; connecting does not count."""
    server.client.flushall()

    async def send() -> tuple[Sending, list[str]]:
        async with Client(server.url) as client:
            ids = await client.send_many(items[:1])
            clock = _Clock(server, len(items) - 1)
            ids += await client.send_many(items[1:])
            return clock.read(), [*ids]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        sending, ids = runner.run(send())
    streams = [load.KEYS.entries(Partition(number)) for number in range(DEFAULT_PARTITIONS)]
    verify(server.client, streams, items, ids)
    return sending


def with_pipeline(server: BenchServer, items: list[Item]) -> Sending:
    """Send by a bare pipeline."""
    server.client.flushall()
    client = redis.Redis.from_url(server.url)
    client.ping()
    clock = _Clock(server, len(items))
    for start in range(0, len(items), _BATCH):
        pipeline = client.pipeline(transaction=False)
        for scope, message in items[start : start + _BATCH]:
            pipeline.xadd(yardstick.STREAM, {"s": scope, "m": msgpack.packb(message)})
        pipeline.execute()
    sending = clock.read()
    client.close()
    verify(server.client, [yardstick.STREAM], items, [])
    return sending


def verify(client: redis.Redis, streams: list[str], items: list[Item], ids: list[str]) -> None:
    """Each message stands there once, those of a scope in order; and so say the ids returned."""
    wanted: dict[str, list[bytes]] = {}
    for scope, message in items:
        wanted.setdefault(scope, []).append(msgpack.packb(message))
    found: dict[str, list[bytes]] = {}
    ids_found: dict[str, list[str]] = {}
    for stream in streams:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(stream))
        for entry_id, fields in entries:
            scope = fields[b"s"].decode()
            found.setdefault(scope, []).append(fields[b"m"])
            ids_found.setdefault(scope, []).append(entry_id.decode())
    ids_wanted: dict[str, list[str]] = {}
    for (scope, _), entry_id in zip(items, ids, strict=False):
        ids_wanted.setdefault(scope, []).append(entry_id)
    if found != wanted or (ids and ids_found != ids_wanted):
        raise load.Mismatch("what was sent is not what stands in the streams")


def count_trips(server: BenchServer) -> int:
    """Round trips that so many concurrent `Client.send` calls take together."""
    server.client.flushall()

    async def send() -> int:
        async with relaying(server.url) as relay, Client(relay.url) as client:
            await client.send("user", {"type": "bench.echo"})  # connects
            before = relay.trips
            async with asyncio.TaskGroup() as tasks:
                for number in range(AT_ONCE):
                    tasks.create_task(
                        client.send(f"user-{number}", {"type": "bench.echo", "n": number})
                    )
            return relay.trips - before

    return asyncio.run(send())
