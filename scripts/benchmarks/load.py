"""Load: messages prepared aside, let go at one instant, and answers checked afterwards.

Entries are appended to streams that nobody reads, and then renamed to the input streams in one
transaction: the worker finds the whole backlog at once, and no producer runs beside it. The ids
of replies carry the server's time, so that the end needs no observer either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import msgpack
import redis

from wherry.broker.wire import Keys
from wherry.config import DEFAULT_PARTITIONS, Config
from wherry.model import Partition, partition_of

KEYS = Keys(Config().namespace)
STALL_S = 30.0
_BATCH = 1_000
_LOOK_S = 0.05
_OVERHEAD_BYTES = len(msgpack.packb({"type": "bench.echo", "n": 2**31, "data": ""}))
_UNFINISHED = """
local left = 0
for _, key in ipairs(KEYS) do
  left = left + redis.call('XLEN', key)
end
return left
"""

Answer = tuple[int, bytes, bytes]
"""Instant (Unix ms), packed reply, id of its cause."""


class Mismatch(Exception):
    """Answers are not what they must be."""


@dataclass(slots=True)
class Load:
    """Messages of one round.

    Attributes:
        sent: scope id -> (entry id, number) of each of its messages, in order.
        data: what each message carries beside its number.
        streams: key to which they were appended -> key from which they are read.
        spent_ms: from the append of each to that of its answer; known once it is verified.
    """

    sent: dict[str, list[tuple[bytes, int]]]
    data: str
    streams: dict[str, str] = field(default_factory=lambda: {})
    spent_ms: list[int] = field(default_factory=lambda: [])

    @property
    def count(self) -> int:
        """Number of messages."""
        return sum(map(len, self.sent.values()))


def payload(size_bytes: int) -> str:
    """What makes a packed message about so large."""
    return "x" * max(0, size_bytes - _OVERHEAD_BYTES)


def stage(
    client: redis.Redis,
    scopes: list[str],
    messages: int,
    size_bytes: int,
    stream_of: Callable[[str], str],
) -> Load:
    """Append messages aside, the scopes taking turns."""
    data = payload(size_bytes)
    load = Load({scope: [] for scope in scopes}, data)
    for start in range(0, messages, _BATCH):
        pipeline = client.pipeline(transaction=False)
        numbers = range(start, min(start + _BATCH, messages))
        for number in numbers:
            scope = scopes[number % len(scopes)]
            stream = stream_of(scope)
            staged = load.streams.setdefault(f"{stream}:staged", stream)
            assert staged == stream
            message = msgpack.packb({"type": "bench.echo", "n": number, "data": data})
            pipeline.xadd(f"{stream}:staged", cast("Any", {"s": scope, "m": message}))
        for number, entry_id in zip(numbers, cast("list[bytes]", pipeline.execute()), strict=True):
            load.sent[scopes[number % len(scopes)]].append((entry_id, number))
    return load


def input_stream(scope: str) -> str:
    """Where a worker reads a scope's messages."""
    return KEYS.entries(partition_of(scope, DEFAULT_PARTITIONS))


def reply_stream(scope: str) -> str:
    """Where a worker writes a scope's replies."""
    return KEYS.replies(partition_of(scope, DEFAULT_PARTITIONS), scope)


def release(client: redis.Redis, load: Load) -> float:
    """Let the messages go; return the instant by the server's clock, in Unix seconds.

    In a cluster one partition comes after the other, within some milliseconds.
    """
    if isinstance(client, redis.RedisCluster):
        started_s = time.time()  # nodes of a benchmark run on this machine
        for staged, stream in load.streams.items():
            client.execute_command("RENAME", staged, stream)
        return started_s
    pipeline = client.pipeline(transaction=True)
    pipeline.time()
    for staged, stream in load.streams.items():
        pipeline.rename(staged, stream)
    seconds, micros = cast("list[Any]", pipeline.execute())[0]
    return seconds + micros / 1e6


def wait_for_partitions(client: redis.Redis) -> None:
    """Return when the worker owns every partition."""
    until_s = time.monotonic() + STALL_S
    while True:
        pipeline = client.pipeline(transaction=False)
        for number in range(DEFAULT_PARTITIONS):
            pipeline.hget(KEYS.lease(Partition(number)), "owner")
        if all(pipeline.execute()):
            return
        if time.monotonic() > until_s:
            raise TimeoutError("the worker does not claim all partitions")
        time.sleep(_LOOK_S)


def wait_until_finished(client: redis.Redis, load: Load, check: Callable[[], None]) -> None:
    """Return when no entry of the load is left; look seldom, it takes time of the server.

    Raises:
        TimeoutError: nothing was finished for `STALL_S`.
    """
    keys = list(load.streams.values())
    least, changed_s = load.count + 1, time.monotonic()
    while left := _count(client, keys):
        check()
        now_s = time.monotonic()
        if left < least:
            least, changed_s = left, now_s
        elif now_s > changed_s + STALL_S:
            raise TimeoutError(f"{left} of {load.count} messages are not finished")
        time.sleep(_LOOK_S)


def _count(client: redis.Redis, keys: list[str]) -> int:
    if isinstance(client, redis.RedisCluster):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.xlen(key)
        return sum(cast("list[int]", pipeline.execute()))
    return int(cast("int", client.eval(_UNFINISHED, len(keys), *keys)))


def read_answers(
    client: redis.Redis, scopes: list[str], stream_of: Callable[[str], str]
) -> Iterator[tuple[str, list[Answer]]]:
    """All answers, scope by scope, in the order in which they were written."""
    for start in range(0, len(scopes), _BATCH):
        batch = scopes[start : start + _BATCH]
        pipeline = client.pipeline(transaction=False)
        for scope in batch:
            pipeline.xrange(stream_of(scope))
        for scope, entries in zip(batch, pipeline.execute(), strict=True):
            yield (
                scope,
                [
                    (int(entry_id.partition(b"-")[0]), fields[b"m"], fields.get(b"i", b""))
                    for entry_id, fields in entries
                ],
            )


def verify(
    client: redis.Redis,
    load: Load,
    stream_of: Callable[[str], str],
    *,
    causes: bool,
    is_tail: bool = False,
) -> float:
    """Check that each message was answered once, in order, rightly.

    Args:
        client: connection.
        load: what was sent.
        stream_of: where a scope's replies stand.
        causes: whether replies name the entry that they answer.
        is_tail: there may be older answers, and of many the newest `Config.reply_length` are kept.

    Returns:
        Instant of the last answer by the server's clock, in Unix seconds.

    Raises:
        Mismatch: says where.
    """
    last_ms = 0
    for scope, found in read_answers(client, list(load.sent), stream_of):
        answers, sent = found, load.sent[scope]
        if is_tail:
            answers, sent = _tails(answers, sent)
        if len(answers) != len(sent):
            raise Mismatch(f"scope {scope}: {len(answers)} answers to {len(sent)} messages")
        for (entry_id, number), (at_ms, packed, cause) in zip(sent, answers, strict=True):
            wanted = {"type": "bench.reply", "n": number, "data": load.data}
            if msgpack.unpackb(packed) != wanted or (causes and cause != entry_id):
                raise Mismatch(f"scope {scope}: entry {entry_id.decode()} is answered wrongly")
            last_ms = max(last_ms, at_ms)
            load.spent_ms.append(at_ms - int(entry_id.split(b"-")[0]))
    return last_ms / 1000


def _tails(
    answers: list[Answer], sent: list[tuple[bytes, int]]
) -> tuple[list[Answer], list[tuple[bytes, int]]]:
    """The newest answers, and what they must belong to."""
    kept = min(len(answers), len(sent))
    if kept >= Config().reply_length:
        sent = sent[-kept:]
    return answers[-len(sent) :], sent


def verify_states(client: redis.Redis, load: Load) -> None:
    """Check that the durable state of each scope has counted each of its messages once.

    Raises:
        Mismatch: says where.
    """
    scopes = list(load.sent)
    for start in range(0, len(scopes), _BATCH):
        batch = scopes[start : start + _BATCH]
        pipeline = client.pipeline(transaction=False)
        for scope in batch:
            pipeline.hget(KEYS.state(partition_of(scope, DEFAULT_PARTITIONS), scope), "state")
        for scope, packed in zip(batch, cast("list[bytes]", pipeline.execute()), strict=True):
            count = msgpack.unpackb(packed)["count"] if packed else 0
            if count != len(load.sent[scope]):
                raise Mismatch(f"scope {scope}: {count} of {len(load.sent[scope])} are counted")
