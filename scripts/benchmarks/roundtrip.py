"""Round trip: from appending a message to having its reply, with 1 and with 64 in flight.

Three answer in turn: the worker, the bare loop on redis-py's asyncio client, which is the kind of
client that a worker has, and the bare loop on its blocking client. The side that measures is the
same for all: one write appends what is due and waits for replies (XADD, ..., XREAD BLOCK), each
scope has one message in flight, and no more is done before all have come. Replies are checked
after the clock has stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack

from . import load, yardstick
from .connection import Connection, connected
from .process import cpu_s, running_worker
from .spread import percentiles, spread, told
from .store import BenchServer

IN_FLIGHT = (1, 64)
SIDES = ("worker", "asyncio", "blocking")
_LARGER = 10
_SIZE_BYTES = 200
_BLOCK_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """Who answers.

    Attributes:
        pid: its process.
        stream_of: scope -> where it reads.
        replies_of: scope -> where it writes.
        names_causes: whether its replies name the entry that they answer.
    """

    pid: int
    stream_of: Callable[[str], str]
    replies_of: Callable[[str], str]
    names_causes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trips:
    """Round trips of one round.

    Attributes:
        p50_ms: median.
        p99_ms: of a hundred, one takes longer.
        worker_cpu_us: user and system time of who answers, for each message.
        server_cpu_us: the same of the server.
    """

    p50_ms: float
    p99_ms: float
    worker_cpu_us: float
    server_cpu_us: float


def measure(server: BenchServer, directory: Path, *, trips: int, pairs: int) -> dict[str, Any]:
    """Run the rounds, who begins changing from pair to pair, and print them as they come."""
    report: dict[str, Any] = {}
    for in_flight in IN_FLIGHT:
        count = trips if in_flight == 1 else trips * _LARGER
        print(f"round trip: {count} of {_SIZE_BYTES} bytes, {in_flight} in flight; p50/p99 ms, us")
        print("pair  " + "  ".join(f"{name:^31}" for name in ("wherry run", *SIDES[1:])))
        rounds: list[dict[str, Trips]] = []
        for pair in range(pairs):
            turn = pair % len(SIDES)
            order = SIDES[turn:] + SIDES[:turn]
            found = {name: run(server, directory, name, in_flight, count) for name in order}
            rounds.append(found)
            shown = "  ".join(_columns(found[name]) for name in SIDES)
            print(f"{pair + 1:>4}  {shown}", flush=True)
        report[str(in_flight)] = _report(rounds, in_flight)
    return report


def run(server: BenchServer, directory: Path, side: str, in_flight: int, count: int) -> Trips:
    """One round of one of the `SIDES`."""
    server.client.flushall()
    scopes = [f"user-{number}" for number in range(in_flight)]
    with (
        answering(server, directory, side, in_flight + count) as who,
        connected(server.client) as connection,
    ):
        traffic = Traffic(connection, who, scopes)
        traffic.run(in_flight)  # makes the instances
        worker_cpu_s, server_cpu_s = cpu_s(who.pid), server.cpu_s()
        spent_s = traffic.run(count)
        server_cpu_s = server.cpu_s() - server_cpu_s
        worker_cpu_s = cpu_s(who.pid) - worker_cpu_s
        traffic.verify()
    figures = percentiles(spent_s)
    return Trips(
        p50_ms=figures["p50_ms"],
        p99_ms=figures["p99_ms"],
        worker_cpu_us=1e6 * worker_cpu_s / count,
        server_cpu_us=1e6 * server_cpu_s / count,
    )


@contextmanager
def answering(server: BenchServer, directory: Path, side: str, messages: int) -> Iterator[Answerer]:
    """One of the `SIDES`, ready."""
    if side == "worker":
        with running_worker(server.url, directory) as worker:
            load.wait_for_partitions(server.client)
            yield Answerer(
                pid=worker.pid,
                stream_of=load.input_stream,
                replies_of=load.reply_stream,
                names_causes=True,
            )
        return
    server.client.xgroup_create(yardstick.STREAM, yardstick.GROUP, id="0", mkstream=True)
    with yardstick.running_yardstick(server.url, messages, kind=side) as loop:
        loop.start()
        yield Answerer(
            pid=loop.pid,
            stream_of=lambda _: yardstick.STREAM,
            replies_of=yardstick.reply_stream,
            names_causes=False,
        )
        loop.wait_cpu_s()


@dataclass(slots=True)
class Sent:
    """A message on its way."""

    number: int
    at_s: float
    entry_id: bytes = b""


class Traffic:
    """Messages with one in flight for each scope; remembers every reply until it is checked."""

    def __init__(self, connection: Connection, who: Answerer, scopes: list[str]) -> None:
        self._connection = connection
        self._who = who
        self._scopes = scopes
        self._data = load.payload(_SIZE_BYTES)
        self._cursors = {who.replies_of(scope).encode(): b"0-0" for scope in scopes}
        self._scope_of = dict(zip(self._cursors, scopes, strict=True))
        self._sent = 0
        self._answers: list[tuple[Sent, list[bytes]]] = []

    def run(self, count: int) -> list[float]:
        """Send so many messages; return the seconds from each to its reply."""
        messages = iter([self._pack(self._sent + one) for one in range(count)])
        under_way: dict[bytes, Sent] = {}
        spent_s: list[float] = []
        due = list(self._cursors)[:count]
        while len(spent_s) < count:
            sent = self._write(due, messages, under_way)
            for one in sent:
                one.entry_id = self._connection.read()
            found = self._connection.read()
            now_s = time.perf_counter()
            if found is None:
                raise TimeoutError(f"{len(under_way)} messages are not answered")
            due = []
            for key, entries in found:
                one = under_way.pop(key)
                spent_s.append(now_s - one.at_s)
                self._cursors[key], flat = entries[0]
                self._answers.append((one, flat))
                if len(entries) > 1:
                    raise load.Mismatch(f"{key.decode()}: a message was answered twice")
                due.append(key)
            due = due[: count - len(spent_s) - len(under_way)]
        return spent_s

    def _write(
        self, due: list[bytes], messages: Iterator[bytes], under_way: dict[bytes, Sent]
    ) -> list[Sent]:
        """Append a message for each reply stream that is due, and ask for replies."""
        commands: list[tuple[Any, ...]] = []
        for key in due:
            scope = self._scope_of[key]
            stream = self._who.stream_of(scope)
            commands.append(("XADD", stream, "*", "s", scope, "m", next(messages)))
        read = ("XREAD", "BLOCK", _BLOCK_MS, "STREAMS", *self._cursors, *self._cursors.values())
        now_s = time.perf_counter()
        sent = [Sent(self._sent + place, now_s) for place in range(len(due))]
        self._sent += len(due)
        under_way.update(zip(due, sent, strict=True))
        self._connection.write([*commands, read])
        return sent

    def verify(self) -> None:
        """Check every reply; raises Mismatch as `verify` does."""
        verify(self._who, self._answers, self._data)

    def _pack(self, number: int) -> bytes:
        return msgpack.packb({"type": "bench.echo", "n": number, "data": self._data})


def verify(who: Answerer, answers: list[tuple[Sent, list[bytes]]], data: str) -> None:
    """Check every reply: the right content, and that of the right message.

    Raises:
        Mismatch: says which.
    """
    for sent, flat in answers:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        wanted = {"type": "bench.reply", "n": sent.number, "data": data}
        is_right = msgpack.unpackb(fields[b"m"]) == wanted
        if not is_right or (who.names_causes and fields[b"i"] != sent.entry_id):
            raise load.Mismatch(f"entry {sent.entry_id.decode()} is answered wrongly")


def _columns(one: Trips) -> str:
    return (
        f"{one.p50_ms:>7.3f} /{one.p99_ms:>7.3f}{one.worker_cpu_us:>7.0f} +"
        f"{one.server_cpu_us:>5.0f} us"
    )


def _report(rounds: list[dict[str, Trips]], in_flight: int) -> dict[str, Any]:
    report: dict[str, Any] = {
        "rounds": [{name: asdict(one) for name, one in found.items()} for found in rounds]
    }
    for bare in SIDES[1:]:
        ratio = spread([found["worker"].p50_ms / found[bare].p50_ms for found in rounds])
        report[f"ratio_{bare}"] = ratio
        print(f"{in_flight} in flight, p50 to that of the {bare} loop: {told(ratio)}", flush=True)
    return report
