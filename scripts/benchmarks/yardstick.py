"""The yardstick: a bare redis-py loop in a process of its own.

It keeps no order per scope, has no application and loses or doubles work when it dies: it is the
least that Python and Redis can do with a message. One XREADGROUP of 128, unpack, pack, and one
pipeline of 128 XADD and one XACK.

    python -m scripts.benchmarks.yardstick URL STREAM COUNT blocking|asyncio

says ``ready``, starts when it gets a line, and ends by saying its CPU seconds. The blocking client
of redis-py is the quicker one; its asyncio client is the kind that a worker has.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import redis
import redis.asyncio as aioredis

from .loop import new_loop
from .process import ROOT

STREAM = "yardstick:in"
GROUP = "yardstick"
_COUNT = 128


def reply_stream(scope: str) -> str:
    """Where the yardstick answers a scope."""
    return f"yardstick:out:{scope}"


def run(url: str, stream: str, count: int) -> float:
    """Answer so many messages; return the CPU seconds that it took."""
    client = redis.Redis.from_url(url)
    client.ping()
    print("ready", flush=True)
    sys.stdin.readline()
    started_s = time.process_time()
    done = 0
    while done < count:
        answer = client.xreadgroup(GROUP, "one", {stream: ">"}, count=_COUNT, block=1_000)
        if answer:
            pipeline = client.pipeline(transaction=False)
            done += _answer(pipeline, stream, answer)
            pipeline.execute()
    return time.process_time() - started_s


async def run_async(url: str, stream: str, count: int) -> float:
    """The same with the asyncio client."""
    client = aioredis.Redis.from_url(url)
    await client.ping()
    print("ready", flush=True)
    sys.stdin.readline()
    started_s = time.process_time()
    done = 0
    while done < count:
        answer = await client.xreadgroup(GROUP, "one", {stream: ">"}, count=_COUNT, block=1_000)
        if answer:
            pipeline = client.pipeline(transaction=False)
            done += _answer(pipeline, stream, answer)
            await pipeline.execute()
    spent_s = time.process_time() - started_s
    await client.aclose()
    return spent_s


def _answer(pipeline: Any, stream: str, answer: Any) -> int:
    """Put the answers to a batch into a pipeline; return how many."""
    [batches] = answer.values() if isinstance(answer, dict) else [[answer[0][1]]]
    [entries] = batches
    ids: list[bytes] = []
    for entry_id, fields in entries:
        message = msgpack.unpackb(fields[b"m"])
        reply = {"type": "bench.reply", "n": message["n"], "data": message["data"]}
        pipeline.xadd("yardstick:out:" + fields[b"s"].decode(), {"m": msgpack.packb(reply)})
        ids.append(entry_id)
    pipeline.xack(stream, GROUP, *ids)
    return len(ids)


def main(url: str, stream: str, count: int, kind: str) -> float:
    """Run one of the two."""
    if kind == "blocking":
        return run(url, stream, count)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(run_async(url, stream, count))


class Yardstick:
    """One run of the loop, seen from outside.

    Attributes:
        pid: its process id.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the yardstick has ended with code {self._process.wait()}")
        return line

    def wait_ready(self) -> None:
        """Return when it is connected and waits for its start."""
        self._read()

    def start(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def wait_cpu_s(self) -> float:
        """Wait for its end; return its CPU seconds."""
        return float(self._read())


@contextlib.contextmanager
def running_yardstick(url: str, count: int, *, kind: str = "blocking") -> Iterator[Yardstick]:
    """The loop in its process, ready to start."""
    command = [sys.executable, "-m", "scripts.benchmarks.yardstick", url, STREAM, str(count), kind]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yardstick = Yardstick(process)
            yardstick.wait_ready()
            yield yardstick
        except BaseException:
            process.kill()
            raise


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]), flush=True)
