"""Runs the fleet under faults and says what was lost, doubled, reordered or wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from wherry import Client, Config, Reply
from wherry.broker.connect import Link, open_store
from wherry.broker.wire import Keys
from wherry.errors import WherryError
from wherry.model import Partition

from .checking import Checker, Verdict
from .faults import Faults, Quota
from .fleet import Fleet, Server
from .producing import Producer

LIVE_SCOPES = 100
SETTLE_S = 120.0


def main() -> int:
    """Parse, run, report; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--scopes", type=int, default=500)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--terms", type=int, default=5)
    parser.add_argument("--redis-kills", type=int, default=1)
    parser.add_argument("--lease", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--server", default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--logs", type=Path, default=None)
    options = parser.parse_args()
    if options.workers < 2:
        parser.error("--workers: a fleet has at least 2")
    with tempfile.TemporaryDirectory(prefix="wherry-chaos-") as scratch:
        directory = options.logs or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_run(options, directory))


async def _run(options: argparse.Namespace, directory: Path) -> int:
    quota = Quota(
        {
            "kill": options.kills,
            "stop": options.stops,
            "term": options.terms,
            "redis": options.redis_kills,
        }
    )
    server = Server(directory, options.server)
    server.start()
    settings = [
        "namespace=chaos",
        f"lease_s={options.lease}",
        f"beat_s={options.lease / 3:.3f}",
        "reply_length=100000000",
        "lifespan=off",
    ]
    fleet = Fleet(server.url, directory, settings)
    print(f"seed {options.seed}, {options.workers} workers, lease {options.lease:g} s", flush=True)
    began_s = time.monotonic()
    try:
        for _ in range(options.workers):
            await fleet.start()
        verdict = await _strain(options, quota, server, fleet)
        await fleet.stop()
    finally:
        fleet.kill()
        server.kill()
    return _report(options, quota, fleet, verdict, time.monotonic() - began_s)


async def _strain(
    options: argparse.Namespace, quota: Quota, server: Server, fleet: Fleet
) -> Verdict:
    store = open_store(server.url)
    link = store.link()
    config = Config(namespace="chaos", reply_length=100_000_000)
    async with Client(store, config=config) as client:
        producer = Producer(client, options.messages, options.scopes)
        seen: dict[str, list[Reply]] = {}
        unfinished = [0]
        async with asyncio.TaskGroup() as tasks:
            watching = [
                tasks.create_task(_watch(client, f"scope-{number}", seen))
                for number in range(min(LIVE_SCOPES, options.scopes))
            ]
            watching.append(tasks.create_task(_gauge(link, producer, quota, unfinished)))
            async with asyncio.TaskGroup() as work:
                random_ = random.Random(options.seed)
                faults = Faults(fleet, server, link, quota, options.lease)
                work.create_task(faults.run(random_))
                work.create_task(
                    producer.run(
                        random.Random(options.seed + 1),
                        quota.share,
                        lambda: producer.sent - unfinished[0],
                    )
                )
            await _settle(fleet, unfinished)
            for task in watching:
                task.cancel()
        partitions = int(await link.call("HGET", Keys("chaos").meta, "partitions"))
        verdict = await Checker(link, partitions).check(producer.counts, producer.told, seen)
    await link.aclose()
    return verdict


async def _watch(client: Client, name: str, seen: dict[str, list[Reply]]) -> None:
    """A live reader: what it saw must still be there at the end."""
    found = seen.setdefault(name, [])
    async for item in client.replies(name, follow=True):
        if isinstance(item, Reply):
            found.append(item)


async def _gauge(link: Link, producer: Producer, quota: Quota, unfinished: list[int]) -> None:
    """Keep the number of unfinished entries up to date, and show progress."""
    keys, turn = Keys("chaos"), 0
    while True:
        try:
            count = int(await link.call("HGET", keys.meta, "partitions") or 0)
            sizes = await link.calls([("XLEN", keys.entries(Partition(p))) for p in range(count)])
            unfinished[0] = sum(size for size in sizes if isinstance(size, int))
        except WherryError:
            unfinished[0] = max(unfinished[0], 1)
        turn += 1
        if turn % 100 == 0:
            done = " ".join(f"{kind} {count}" for kind, count in sorted(quota.done.items()))
            print(f"sent {producer.sent:,}  unfinished {unfinished[0]:,}  {done}", flush=True)
        await asyncio.sleep(0.1)


async def _settle(fleet: Fleet, unfinished: list[int]) -> None:
    """Wait until nothing is unfinished, twice in a row."""
    calm = 0
    async with asyncio.timeout(SETTLE_S):
        while calm < 3:
            await fleet.replace_ended()
            await asyncio.sleep(0.2)
            calm = calm + 1 if unfinished[0] == 0 else 0


def _report(
    options: argparse.Namespace, quota: Quota, fleet: Fleet, verdict: Verdict, took_s: float
) -> int:
    figures = dict(verdict.figures)
    for name in ("lost", "doubled", "out of order", "wrong effect", "wrong durable state"):
        figures.setdefault(name, 0)
    faults = {kind: quota.done.get(kind, 0) for kind in quota.wanted}
    print(f"took {took_s:.0f} s")
    print("faults that met unfinished work: " + json.dumps(faults))
    print("faults in all: " + json.dumps(quota.struck))
    print("exit codes of drained workers: " + json.dumps(fleet.exits))
    for name, count in figures.items():
        print(f"{name:>30} {count:>12,}")
    for example in verdict.examples:
        print(f"  {example}")
    if options.json is not None:
        report = {"seed": options.seed, "faults": faults, "figures": figures, "seconds": took_s}
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print("nothing is wrong" if verdict.is_good else "SOMETHING IS WRONG")
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
