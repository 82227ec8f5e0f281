"""One round: starts servers, fleet, producer and readers, strikes, waits, and checks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wherry import Client, Config
from wherry.broker.connect import open_store
from wherry.broker.embedded_files import find_binary
from wherry.broker.streams import open_namespace
from wherry.broker.wire import Keys

from .answers import FORGOTTEN, MAX_ATTEMPTS
from .asking import ask
from .checking import Checker
from .clustered import ClusterFailovers, Nodes
from .failover import Failovers
from .faults import Faults, Field
from .findings import Findings
from .fleet import Fleet
from .following import Follower, LiveReader, Seen
from .guards import GuardedFailovers, Guards
from .journal import PARTITIONS, Journal
from .owning import Lookout
from .producing import Producer
from .proxy import Proxy
from .quota import Quota
from .rounds import Round
from .servers import Server

FOLLOWED = 60
ASKED = 6
SETTLE_S = 120.0
SHOW_S = 15.0
CONFIG = Config(namespace="chaos", reply_length=100_000_000, backlog=1_000_000, dedup_ttl_s=3_600.0)


@dataclass(slots=True, eq=False)
class Outcome:
    """What a round showed.

    Attributes:
        findings: of the checker, and of the run itself.
        counted: faults that met unfinished work.
        struck: faults in all.
        exits: exit codes of workers that were drained.
        seconds: how long it took.
    """

    findings: Findings = field(default_factory=Findings)
    counted: Counter[str] = field(default_factory=lambda: Counter())
    struck: Counter[str] = field(default_factory=lambda: Counter())
    exits: Counter[int] = field(default_factory=lambda: Counter())
    seconds: float = 0.0


def settings_of(lease_s: float) -> list[str]:
    """Settings of the workers: few applications and little patience, so that much happens."""
    return [
        "namespace=chaos",
        f"lease_s={lease_s:g}",
        f"beat_s={lease_s / 3:.3f}",
        f"block_s={lease_s:g}",
        f"socket_timeout_s={2 * lease_s:g}",
        f"max_attempts={MAX_ATTEMPTS}",
        "retry_backoff_s=0.02",
        "max_applications=150",
        "reply_length=100000000",
        "lifespan=off",
    ]


class Run:
    """One round under way."""

    def __init__(self, round_: Round, directory: Path, binary: str | None) -> None:
        program = str(find_binary(binary))
        self._round = round_
        self._directory = directory
        self._keys = Keys("chaos")
        self._random = random.Random(round_.seed)
        self._journal = Journal()
        self._faults = Quota(round_.faults)
        self._failovers = Quota(round_.failovers)
        self._seen: Seen = {}
        self._guards = Guards(directory, program)
        self._nodes = Nodes(directory, program) if round_.every_s else None
        self._servers = (
            Server(directory / "server-1", program),
            Server(directory / "server-2", program),
        )

    async def run(self) -> Outcome:
        """Do it; everything started is ended when this returns."""
        outcome = Outcome()
        began_s = time.monotonic()
        directory = self._directory
        directory.mkdir(parents=True, exist_ok=True)
        primary, replica = self._servers
        try:
            if self._nodes is not None:
                await asyncio.to_thread(self._nodes.start)
            else:
                primary.start()
                if self._round.failovers:
                    replica.start()
            async with Proxy() as proxy, contextlib.AsyncExitStack() as stack:
                url = self._guards.url if self._round.is_guarded else ""
                url = self._nodes.url if self._nodes is not None else url
                settings = settings_of(self._round.lease_s)
                fleet = Fleet(proxy, primary.port, directory, settings, url)
                stack.push_async_callback(fleet.kill)
                outcome.findings = await self._strain(proxy, fleet)
                outcome.exits = fleet.exits
                outcome.findings.figures["workers that found no Redis at their start"] = (
                    fleet.not_started
                )
                for code, count in fleet.ended.items():
                    outcome.findings.blame("workers that ended unasked", f"{count} with {code}")
        finally:
            self._guards.kill()
            if self._nodes is not None:
                self._nodes.kill()
            primary.kill()
            replica.kill()
        for quota in (self._faults, self._failovers):
            outcome.counted.update({kind: quota.counted[kind] for kind in quota.wanted})
            outcome.struck.update(quota.struck)
        outcome.seconds = time.monotonic() - began_s
        return outcome

    def dump(self, directory: Path) -> None:
        """Write down what is known outside of Redis."""
        journal = self._journal
        known = {
            "sent": journal.sent,
            "unsure": journal.unsure,
            "failovers": [
                {
                    **asdict(one),
                    "unfinished": sorted(one.unfinished),
                    "partitions": sorted(one.partitions or ()),
                }
                for one in journal.failovers
            ],
            "seen": {
                name: [[*found, *place] for found, place in seen.items()]
                for name, seen in self._seen.items()
            },
        }
        (directory / "journal.json").write_text(json.dumps(known), encoding="utf-8")

    async def _strain(self, proxy: Proxy, fleet: Fleet) -> Findings:
        primary = self._servers[0]
        first_url = primary.url if self._nodes is None else self._nodes.url
        lookout = Lookout(first_url, self._keys)
        failovers, url = await self._prepare(proxy, fleet, lookout)
        link = open_store(first_url).link()
        await open_namespace(link, self._keys, PARTITIONS)
        await link.aclose()
        for _ in range(self._round.workers):
            await fleet.start()
        async with Client(url, config=CONFIG) as client:
            round_ = self._round
            producer = Producer(
                client, self._journal, round_.messages, round_.scopes, round_.replicas
            )
            live = LiveReader(url, self._keys, producer.names, self._journal)
            self._seen = live.seen
            followers = {name: Follower() for name in producer.names[:FOLLOWED]}
            asked: dict[str, list[list[dict[str, object]]]] = {}
            if not self._round.failovers:
                asked = {f"loop-ask-{number}": [] for number in range(ASKED)}
            async with asyncio.TaskGroup() as tasks:
                watching = [
                    tasks.create_task(live.run(PARTITIONS), name="live"),
                    tasks.create_task(self._show(producer), name="show"),
                    *(tasks.create_task(one.run(client, name), name=f"follow:{name}")
                      for name, one in followers.items()),
                ]  # fmt: skip
                asking = [
                    tasks.create_task(ask(client, name, answers), name=f"ask:{name}")
                    for name, answers in asked.items()
                ]
                field_ = Field(
                    fleet=fleet,
                    server=primary,
                    proxy=proxy,
                    lookout=lookout,
                    lease_s=self._round.lease_s,
                    size=self._round.workers,
                )
                faults = Faults(field_, self._faults, self._random)
                async with asyncio.TaskGroup() as work:
                    work.create_task(faults.run(producer.share, self._round.at_once))
                    work.create_task(failovers.run(self._random, producer.share, live.rewind))
                    work.create_task(producer.run(self._random, self._share))
                for task in asking:
                    task.cancel()
                is_settled = await self._settle(fleet, lookout)
                for task in watching:
                    task.cancel()
        await fleet.stop()
        is_direct = self._round.is_guarded or self._nodes is not None
        link = open_store(url if is_direct else f"redis://127.0.0.1:{fleet.port}/0").link()
        servers = [open_store(one).link() for one in self._nodes.urls()] if self._nodes else []
        checker = Checker(link, self._journal, fleet.probes(), servers)
        findings = await checker.check(live, followers, asked)
        if isinstance(failovers, ClusterFailovers):
            findings.figures["moves of the slot range"] = failovers.moves
            findings.figures["keys that moved with it"] = failovers.carried
        findings.figures["sent twice with one message id"] = producer.repeated
        if self._round.replicas:
            findings.figures["sent again for want of a replica"] = producer.unconfirmed
            if forgotten := findings.figures[FORGOTTEN]:
                findings.blame("lost", f"{forgotten} messages that a replica had confirmed")
        if not is_settled:
            findings.blame("lost", f"{self._journal.unfinished} unanswered for {SETTLE_S:g} s")
        for one in (link, *servers):
            await one.aclose()
        await lookout.aclose()
        return findings

    async def _prepare(
        self, proxy: Proxy, fleet: Fleet, lookout: Lookout
    ) -> tuple[Failovers | GuardedFailovers | ClusterFailovers, str]:
        """Who fails over, and the URL of clients."""
        primary = self._servers[0]
        if self._nodes is not None:
            about = (lookout, self._keys, self._journal, self._failovers)
            return ClusterFailovers(self._nodes, self._round.every_s, *about), self._nodes.url
        if self._round.is_guarded:
            guarded = GuardedFailovers(
                self._servers, self._guards, lookout, self._keys, self._journal, self._failovers
            )
            await guarded.follow()
            return guarded, self._guards.url
        failovers = Failovers(self._servers, proxy, lookout, fleet, self._journal, self._failovers)
        if not self._round.failovers:
            return failovers, primary.url
        url = f"redis://127.0.0.1:{await proxy.open('clients', primary.port)}/0"
        await failovers.follow()
        return failovers, url

    def _share(self) -> float:
        """Part of the faults that is done."""
        return min(self._faults.share(), self._failovers.share())

    async def _settle(self, fleet: Fleet, lookout: Lookout) -> bool:
        """Wait until everything is answered and nothing is unfinished."""
        try:
            async with asyncio.timeout(SETTLE_S):
                while True:
                    await fleet.replace_ended()
                    look = await lookout.look()
                    if look is not None and not look.first and not self._journal.unfinished:
                        break
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        await asyncio.sleep(1.0)  # what readers are still to read
        return True

    async def _show(self, producer: Producer) -> None:
        """Show progress, if somebody looks."""
        while True:
            await asyncio.sleep(SHOW_S)
            done = {**self._faults.counted, **self._failovers.counted}
            said = " ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
            print(
                f"  {producer.journal.accepted:,} accepted, "
                f"{producer.journal.unfinished:,} unfinished; {said}",
                file=sys.stderr,
                flush=True,
            )
