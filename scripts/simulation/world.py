"""World: everything that one seed has: loop, network, Redis, workers, producer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.client.client import Client
from wherry.config import Config
from wherry.errors import WherryError

from .agenda import NODE, SimulatedLoop
from .application import Application
from .checking import Accepted
from .fleet import Fleet
from .network import PRODUCER, Network, Node, SimulatedStore, Strikes
from .server import Server

LEASE_S = 1.5
PARTITIONS = 4
MAX_ATTEMPTS = 3


@dataclass
class Verdict:
    """What came of a seed.

    Attributes:
        seed: which.
        findings: what was wrong; empty if nothing was.
        hits: of injection points.
        trace: hash of everything that happened.
        figures: counts of interest.
    """

    seed: int
    findings: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    trace: str = ""
    figures: Counter[str] = field(default_factory=Counter)


def _config(chance: random.Random, plan: Sequence[str]) -> Config:
    is_hot = any(point.startswith("refill.") for point in plan)  # else nothing would be deferred
    return Config(
        namespace="sim",
        partitions=PARTITIONS,
        lease_s=LEASE_S,
        beat_s=LEASE_S / 3,
        block_s=1.0,
        # The rates of a story are low: a worker that may pause for so long does.
        gather_s=chance.choice((0.0, 1.0)),
        socket_timeout_s=2.5,
        durable_state=True,
        max_attempts=MAX_ATTEMPTS,
        retry_backoff_s=0.2,
        retry_backoff_max_s=1.0,
        max_applications=chance.choice((2, 4, 1000)),
        concurrency=chance.choice((2, 1000, 1000)),
        scope_waiting=2 if is_hot else chance.choice((2, 4, 64)),
        in_flight=chance.choice((6, 4096, 4096)),
        in_flight_per_partition=6,
        idle_timeout_s=chance.choice((0.0, 0.0, 0.7)),
        drain_timeout_s=chance.choice((0.05, 3.0)),
        end_timeout_s=2.0,
        reply_length=1_000_000,
        lifespan="off",
    )


class World:
    """One seed's world.

    Attributes:
        verdict: what was found so far.
        went_back: Redis has lost data.
        is_ending: nobody is replaced any more.
        accepted: what Redis has taken, in this history.
        sending: sends under way.
    """

    def __init__(
        self,
        seed: int,
        chance: random.Random,
        plan: Sequence[str],
        strikes: Strikes,
        tell: Callable[[str], None] | None,
    ) -> None:
        self.verdict = Verdict(seed)
        self.went_back = False
        self.is_ending = False
        self.chance = chance
        self.config = _config(chance, plan)
        self.loop = SimulatedLoop(random.Random(seed + 1))
        self.loop.set_exception_handler(self._unhandled)
        self.server = Server(self.loop.time)
        self.network = Network(
            self.loop, self.server, random.Random(seed + 2), strikes, self.config.socket_timeout_s
        )
        self.network.tell = tell
        # Then nobody is told that Redis went back in time, and the scripts alone have to notice.
        self.network.is_info_forbidden = chance.random() < 0.4
        self.application = Application(random.Random(seed + 3), NODE.get)
        self.fleet = Fleet(self.network, self.application, self.config, self.find)
        self.producer = Node(PRODUCER, self.network)
        self.client = Client(SimulatedStore(self.producer), config=self.config)
        self.sending: dict[asyncio.Task[None], None] = {}
        self.sent = 0
        self.accepted: list[Accepted] = []

    def close(self) -> None:
        """Forget everything."""
        for member in (*self.fleet.members.values(), *self.fleet.gone):
            member.node.is_dead = True
            self.loop.agenda.thaw(member.name)
        self.producer.is_dead = True
        self.loop.set_exception_handler(lambda *_: None)
        try:
            self.loop.finish()
        finally:
            self.server.close()

    def find(self, what: str) -> None:
        """Something is wrong."""
        if len(self.verdict.findings) < 20:
            self.verdict.findings.append(what)
        self.network.note("FOUND", what)

    def _unhandled(self, _: Any, context: dict[str, Any]) -> None:
        self.find(f"unhandled: {context.get('message')} {context.get('exception')!r}")

    def step(self) -> None:
        """Send something, or let something happen."""
        draw = self.chance.random()
        if draw < 0.24:
            self.send(self.pick_scope())
        elif draw < 0.26:
            self.burst()
        elif draw < 0.80:
            self.loop.step(self.chance.randrange(1, 12))
        elif draw < 0.97:
            self.loop.advance(self.chance.choice((0.001, 0.01, 0.05)))
        else:
            self.loop.advance(self.chance.random() * 0.5)

    def pick_scope(self) -> str:
        """Some scopes are hotter than others."""
        return f"s{min(self.chance.randrange(9), self.chance.randrange(9))}"

    def burst(self) -> None:
        """Send many to one scope."""
        scope_id = self.pick_scope()
        for _ in range(self.chance.randrange(4, 9)):
            self.send(scope_id)

    def send(
        self,
        scope_id: str,
        kind: str | None = None,
        fails: int | None = None,
        works_s: float | None = None,
    ) -> None:
        """Send one message; what is not said is left to chance."""
        chance = self.chance
        self.sent += 1
        if fails is None:
            fails = chance.choice((1, 1, 2, 2, 99)) if chance.random() < 0.08 else 0
        if works_s is None:
            works_s = chance.random() * 0.1 if chance.random() < 0.3 else 0.0
        message = {
            "type": kind or ("tell" if chance.random() < 0.2 else "count"),
            "n": self.sent,
            "fails": fails,
            "works_s": works_s,
            "returns": chance.random() < 0.2,
        }
        options: dict[str, Any] = {"message_id": f"m{self.sent}"}
        if message["type"] == "tell":
            options["stream"] = True
        if chance.random() < 0.03:
            options["expires_s"] = chance.random()
        if chance.random() < 0.1:
            options["scope_keys"] = {"tenant": chance.choice(("a", "b"))}
        task = self.loop.start_node(PRODUCER, self._deliver(scope_id, message, options))
        self.sending[task] = None
        task.add_done_callback(lambda one: self.sending.pop(one, None))

    async def _deliver(self, scope_id: str, message: Any, options: Any) -> None:
        try:
            await self.client.send(scope_id, message, **options)
        except WherryError as error:
            self.network.note("not accepted", message["n"], type(error).__name__)

    def backlog(self) -> int:
        """Entries that are not finished."""
        return sum(self.server.call("XLEN", f"{{sim:{one}}}:in") for one in range(PARTITIONS))

    def owners(self) -> list[str]:
        """Who has the lease of each partition."""
        leases = [f"{{sim:{partition}}}:lease" for partition in range(PARTITIONS)]
        return [(self.server.call("HGET", key, "owner") or b"").decode() for key in leases]
