"""Rolling: what is seen of a rolling restart, and of a killed worker, of ``wherry run --workers``.

The load are the flights of the demo, each aircraft a scope, with handlers of 5 to 50 ms. Every
reply names its cause and tells when its handler began; ids of entries and replies carry the
server's time, which is this machine's. A *gap* is the time from the moment from which a message
could have been begun, when it was there and the one before it was committed, until it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgpack
import redis

from examples.flights.month import Flight, read_month, rows_by_scope
from wherry import Client, Restarted
from wherry.config import Config

from . import fleet
from .load import Mismatch, input_stream, read_answers, reply_stream
from .spread import percentiles
from .store import BenchServer
from .supervised import LIMIT_S, Supervised, running_supervisor

RATE = 400
STEADY_S = 2.0
"""Of load before and after what is done under it."""
_TICK_S = 0.02


class Flights:
    """Sends flights at a steady rate.

    Attributes:
        sent: those that were sent, in order.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.sent: list[Flight] = []
        self._client = client
        self._stop = threading.Event()

    @contextlib.contextmanager
    def flying(self) -> Iterator[None]:
        """Send until the end of the block."""
        sending = threading.Thread(target=self._send, daemon=True)
        sending.start()
        try:
            time.sleep(STEADY_S)
            yield
            time.sleep(STEADY_S)
        finally:
            self._stop.set()
            sending.join()

    def _send(self) -> None:
        # All flights of an aircraft one after another: most wait for the one before.
        waiting = iter(sorted(read_month(), key=lambda one: one.scope_id))
        begun_s = time.monotonic()
        while not self._stop.wait(_TICK_S):
            due = int((time.monotonic() - begun_s) * RATE) - len(self.sent)
            batch = [one for one, _ in zip(waiting, range(due), strict=False)]
            pipeline = self._client.pipeline(transaction=False)
            for one in batch:
                fields = {"s": one.scope_id, "m": msgpack.packb(one.message)}
                pipeline.xadd(input_stream(one.scope_id), cast("Any", fields))
            pipeline.execute()
            self.sent += batch

    def check(self) -> tuple[list[float], list[float]]:
        """Compare all answers with what was sent.

        Returns:
            The gaps of all messages, and of those that waited for the one before, in seconds.

        Raises:
            Mismatch: one is lost, doubled, out of order or wrong.
        """
        gaps_s: list[float] = []
        behind_s: list[float] = []
        rows = rows_by_scope(self.sent)
        miles = dict.fromkeys(rows, 0)
        for one in self.sent:
            if one.message["arr_delay"] is not None:
                miles[one.scope_id] += one.message["distance"]
        for scope, answers in read_answers(self._client, list(rows), reply_stream):
            told = [msgpack.unpackb(packed) for _, packed, _ in answers]
            if [one["row"] for one in told] != rows[scope]:
                raise Mismatch(f"scope {scope}: flights are lost, doubled or out of order")
            if told[-1].get("miles", 0) != miles[scope]:
                raise Mismatch(f"scope {scope}: the total is wrong")
            committed_ms = 0
            for (at_ms, _, cause), one in zip(answers, told, strict=True):
                sent_ms = int(cause.partition(b"-")[0])
                gap_s = max(0.0, one["began_ms"] - max(sent_ms, committed_ms)) / 1000
                gaps_s.append(gap_s)
                if sent_ms < committed_ms:
                    behind_s.append(gap_s)
                committed_ms = at_ms
        return gaps_s, behind_s


def rolling(server: BenchServer, directory: Path, restarts: int) -> dict[str, Any]:
    """SIGHUP of a supervisor with four workers under load, then SIGTERM."""
    client = server.client
    client.flushall()
    spent_s: list[float] = []
    load = Flights(client)
    with running_supervisor(server.url, directory, "flights", 4, "--durable-state") as supervised:
        with load.flying():
            for number in range(1, restarts + 1):
                begun_s = time.monotonic()
                supervised.send_signal(signal.SIGHUP)
                supervised.wait_for("all workers are replaced", number)
                spent_s.append(time.monotonic() - begun_s)
        fleet.wait_until_handled(client)
        supervised.stop()
        if supervised.events("a replaced worker did not end well"):
            raise RuntimeError("a worker was cut off")
    gaps_s, behind_s = load.check()
    print(
        f"rolling: 4 workers replaced {restarts} times under {RATE} flights a second, each time in "
        f"{max(spent_s):.1f} s or less: {len(load.sent)} flights answered once and in order, exit "
        f"code 0",
        flush=True,
    )
    return {
        "restarts": restarts,
        "longest_restart_s": max(spent_s),
        "flights": len(load.sent),
        "gap": _told("from being there, and the last one's commit, to its start", gaps_s),
        "behind": _told("the same, of those that waited for the last one's commit", behind_s),
    }


def _told(what: str, gaps_s: Sequence[float]) -> dict[str, float]:
    figures = percentiles(gaps_s or [0.0])
    print(
        f"  {what}, {len(gaps_s)} times: p50 {figures['p50_ms']:.0f} ms, "
        f"p99 {figures['p99_ms']:.0f} ms, longest {figures['max_ms']:.0f} ms",
        flush=True,
    )
    return figures | {"count": len(gaps_s)}


def respawn(server: BenchServer, directory: Path, kills: int) -> dict[str, Any]:
    """SIGKILL of one of four workers under load: until another is ready, until all is owned."""
    client = server.client
    client.flushall()
    back_s: list[float] = []
    taken_s: list[float] = []
    load = Flights(client)
    with running_supervisor(server.url, directory, "flights", 4, "--durable-state") as supervised:
        with load.flying():
            for _ in range(kills):
                _wait_for_shares(client, supervised)
                victim = fleet.owners(client)[0]
                killed_s, ready = time.time(), len(supervised.events("ready"))
                os.kill(victim, signal.SIGKILL)
                supervised.wait_for("ready", ready + 1)
                back_s.append(supervised.events("ready")[-1]["at_s"] - killed_s)
                supervised.wait_until(
                    lambda victim=victim: victim not in fleet.owners(client), "taken over"
                )
                taken_s.append(time.time() - killed_s)
        fleet.wait_until_handled(client)
        supervised.stop()
    load.check()
    lease_s = Config().lease_s
    print(
        f"respawn: a worker of four killed {kills} times; another was ready within "
        f"{min(back_s):.2f} to {max(back_s):.2f} s, its partitions were taken over within "
        f"{max(taken_s):.2f} s (a lease is {lease_s:g} s); {len(load.sent)} flights answered once "
        "and in order",
        flush=True,
    )
    return {"kills": kills, "back_s": back_s, "taken_s": taken_s, "lease_s": lease_s}


def _wait_for_shares(client: redis.Redis, supervised: Supervised) -> None:
    """Return when four workers have their shares."""

    def is_balanced() -> bool:
        owners = fleet.owners(client)
        counts = [owners.count(pid) for pid in set(owners)]
        return 0 not in owners and len(counts) == 4 and max(counts) - min(counts) <= 1

    supervised.wait_until(is_balanced, "four have their shares")


def story(server: BenchServer, directory: Path, seconds: int) -> dict[str, Any]:
    """SIGHUP in the middle of one streamed answer: what its reader sees."""
    server.client.flushall()
    words = 2 * seconds
    limit = ("--drain-timeout", str(min(Config().drain_timeout_s, seconds / 4)))
    with running_supervisor(server.url, directory, "story", 2, *limit) as supervised:
        view = asyncio.run(_read(server.url, supervised, words))
        supervised.wait_for("all workers are replaced")
        supervised.stop()
    wanted = " ".join(f"word-{number}" for number in range(words))
    if view[-1]["text"] != wanted or view[-1]["words"] != words:
        raise Mismatch(f"the reader's last view is not the whole story: {view[-1]}")
    seen = ", then anew ".join(f"{one['words']} words" for one in view)
    print(f"story: an answer of {words} words in {seconds} s, restarted in its middle", flush=True)
    print(f"  its reader sees {seen}; the last text is whole", flush=True)
    return {"seconds": seconds, "view": view}


async def _read(url: str, supervised: Supervised, words: int) -> list[dict[str, Any]]:
    """Ask for a story; the attempts that a reader sees, each with its words and final text."""
    view: list[dict[str, Any]] = [{"attempt": "", "words": 0, "text": ""}]
    ask = {"type": "bench.story", "words": words, "pause_s": 0.5}
    async with Client(url) as client, asyncio.timeout(LIMIT_S):
        async for event in client.request_stream("reader", ask, timeout_s=LIMIT_S):
            if isinstance(event, Restarted):
                view.append({"attempt": event.attempt, "words": 0, "text": ""})
                continue
            message = event.message or {}
            if message["type"] == "bench.end":
                view[-1]["text"] = message["text"]
                continue
            if message["text"] != f"word-{view[-1]['words']}":
                raise Mismatch(f"the reader sees {message['text']} after {view[-1]['words']} words")
            view[-1]["words"] += 1
            if len(view) == 1 and view[-1]["words"] == words // 2:
                supervised.send_signal(signal.SIGHUP)
    return view
