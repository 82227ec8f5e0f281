"""Story: what happens under one seed, from the first worker's start to the checker's verdict."""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack

from wherry.client.client import Client
from wherry.config import Config
from wherry.errors import WherryError
from wherry.model import partition_of

from .agenda import NODE, SimulatedLoop
from .application import Application
from .checking import Accepted, Checker
from .fleet import Fleet, Member
from .network import PRODUCER, Network, Node, SimulatedStore
from .points import CALL_POINTS, POINTS, kinds_of, learn_scripts, script_of
from .server import Fields, Server

LEASE_S = 1.5
PARTITIONS = 4
SETTLE_S = 60.0
MAX_ATTEMPTS = 3
_OFTEN = ("commit", "emit", "read", "claim", "renew", "fail")
AIMED = (
    *(point for point in CALL_POINTS if point.split(".")[0] in _OFTEN),
    *("world.crash", "world.stall", "world.cut"),
    *4 * ("world.rollback", "world.forget", "world.split", "read.after.error"),
)
"""What hurts most: two faults of each seed are among these."""


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


def play(
    seed: int, *, steps: int = 200, faults: int = 5, tell: Callable[[str], None] | None = None
) -> Verdict:
    """Run one seed."""
    with _determined(seed):
        story = Story(seed, steps, faults, tell)
        for part in (story.run, story.close):
            try:
                part()
            except Exception as error:  # noqa: BLE001 - an endless loop, say: a finding like others
                story.find(f"raised: {error!r}")
    return story.verdict


class _Ordered(dict[Any, None]):
    """A set that keeps the order in which things came."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


@contextmanager
def _determined(seed: int) -> Generator[None]:
    """Let nothing depend on chance, memory addresses or the collector."""
    begin = asyncio.TaskGroup.__init__
    token_hex, was_enabled = secrets.token_hex, gc.isenabled()
    source = random.Random(seed)

    def begin_in_order(group: Any) -> None:
        begin(group)
        group._tasks = _Ordered()  # it cancels its tasks in the order of a set

    def token(size: int | None = None) -> str:
        return f"{source.getrandbits(8 * (size or 32)):0{2 * (size or 32)}x}"

    asyncio.TaskGroup.__init__ = begin_in_order  # type: ignore[method-assign]
    secrets.token_hex = token
    gc.disable()
    random.seed(seed)
    try:
        yield
    finally:
        asyncio.TaskGroup.__init__ = begin  # type: ignore[method-assign]
        secrets.token_hex = token_hex
        if was_enabled:
            gc.enable()


def _config(chance: random.Random) -> Config:
    return Config(
        namespace="sim",
        partitions=PARTITIONS,
        lease_s=LEASE_S,
        beat_s=LEASE_S / 3,
        block_s=1.0,
        socket_timeout_s=2.5,
        durable_state=True,
        max_attempts=MAX_ATTEMPTS,
        retry_backoff_s=0.2,
        retry_backoff_max_s=1.0,
        max_applications=chance.choice((2, 4, 1000)),
        concurrency=chance.choice((2, 1000, 1000)),
        scope_waiting=chance.choice((2, 4, 64)),
        in_flight=chance.choice((6, 4096, 4096)),
        in_flight_per_partition=6,
        idle_timeout_s=chance.choice((0.0, 0.0, 0.7)),
        drain_timeout_s=chance.choice((0.05, 3.0)),
        end_timeout_s=2.0,
        reply_length=1_000_000,
        lifespan="off",
    )


class Story:
    """One seed's world; implements `network.Strikes`."""

    def __init__(
        self, seed: int, steps: int, faults: int, tell: Callable[[str], None] | None
    ) -> None:
        learn_scripts()
        self.verdict = Verdict(seed)
        self._is_ending = False
        self._went_back = False
        self._forgets = False
        self._held_up: set[str] = set()
        self._victim: Member | None = None
        self._chance = chance = random.Random(seed)
        self._steps = steps
        self._faults = faults
        self._plan = _plan(seed, faults, chance)
        self._armed: list[str] = []
        self._struck = 0
        self._config = _config(chance)
        self._loop = SimulatedLoop(random.Random(seed + 1))
        self._loop.set_exception_handler(self._unhandled)
        self._server = Server(self._loop.time)
        self._network = Network(
            self._loop, self._server, random.Random(seed + 2), self, self._config.socket_timeout_s
        )
        self._network.tell = tell
        # Then nobody is told that Redis went back in time, and the scripts alone have to notice.
        self._network.is_info_forbidden = chance.random() < 0.4
        self._application = Application(random.Random(seed + 3), NODE.get)
        self._fleet = Fleet(self._network, self._application, self._config, self.find)
        self._producer = Node(PRODUCER, self._network)
        self._client = Client(SimulatedStore(self._producer), config=self._config)
        self._sending: dict[asyncio.Task[None], None] = {}
        self._sent = 0
        self._accepted: list[Accepted] = []
        self._newest: dict[bytes, str] = {}

    def run(self) -> None:
        """Tell the whole story.

        Raises:
            HarnessError: something runs without end.
        """
        for _ in range(3):
            self._fleet.start()
        self._loop.run_until(lambda: all(one.has_joined for one in self._fleet.members.values()), 9)
        self._loop.advance(1.0)
        times = sorted(self._chance.randrange(self._steps) for _ in self._plan)
        plan = list(self._plan)
        for number in range(self._steps):
            while times and times[0] <= number:
                times.pop(0)
                self._arm(plan.pop(0))
            self._step()
            self._fleet.check()
        for _ in range(30):
            if self._struck >= self._faults and not self._armed:
                break
            self._insist()
        self._heal()
        self._end()
        self.verdict.trace = self._network.trace
        self.verdict.figures.update(
            calls=self._network.calls,
            sent=self._sent,
            accepted=len(self._accepted),
            struck=self._struck,
            virtual_s=round(self._loop.time()),
        )

    def close(self) -> None:
        """Forget everything."""
        for member in (*self._fleet.members.values(), *self._fleet.gone):
            member.node.is_dead = True
            self._loop.agenda.thaw(member.name)
        self._producer.is_dead = True
        self._loop.set_exception_handler(lambda *_: None)
        self._loop.finish()

    def find(self, what: str) -> None:
        if len(self.verdict.findings) < 20:
            self.verdict.findings.append(what)
        self._network.note("FOUND", what)

    def _unhandled(self, _: Any, context: dict[str, Any]) -> None:
        self.find(f"unhandled: {context.get('message')} {context.get('exception')!r}")

    # -- what happens on its own

    def _step(self) -> None:
        draw = self._chance.random()
        if draw < 0.24:
            self._send(self._pick_scope())
        elif draw < 0.26:
            self._burst()
        elif draw < 0.80:
            self._loop.step(self._chance.randrange(1, 12))
        elif draw < 0.97:
            self._loop.advance(self._chance.choice((0.001, 0.01, 0.05)))
        else:
            self._loop.advance(self._chance.random() * 0.5)

    def _pick_scope(self) -> str:
        return f"s{min(self._chance.randrange(9), self._chance.randrange(9))}"

    def _burst(self) -> None:
        scope_id = self._pick_scope()
        for _ in range(self._chance.randrange(4, 9)):
            self._send(scope_id)

    def _send(
        self,
        scope_id: str,
        kind: str | None = None,
        fails: int | None = None,
        works_s: float | None = None,
    ) -> None:
        chance = self._chance
        self._sent += 1
        if fails is None:
            fails = chance.choice((1, 1, 2, 2, 99)) if chance.random() < 0.08 else 0
        if works_s is None:
            works_s = chance.random() * 0.1 if chance.random() < 0.3 else 0.0
        message = {
            "type": kind or ("tell" if chance.random() < 0.2 else "count"),
            "n": self._sent,
            "fails": fails,
            "works_s": works_s,
            "returns": chance.random() < 0.2,
        }
        options: dict[str, Any] = {"message_id": f"m{self._sent}"}
        if message["type"] == "tell":
            options["stream"] = True
        if chance.random() < 0.03:
            options["expires_s"] = chance.random()
        if chance.random() < 0.1:
            options["scope_keys"] = {"tenant": chance.choice(("a", "b"))}
        task = self._loop.start_node(PRODUCER, self._deliver(scope_id, message, options))
        self._sending[task] = None
        task.add_done_callback(lambda one: self._sending.pop(one, None))

    async def _deliver(self, scope_id: str, message: Any, options: Any) -> None:
        try:
            await self._client.send(scope_id, message, **options)
        except WherryError as error:
            self._network.note("not accepted", message["n"], type(error).__name__)

    # -- faults

    def _arm(self, point: str) -> None:
        self._network.note("arm", point)
        kind, _, what = point.partition(".")
        if kind == "world":
            getattr(self, f"_{what}")()
            return
        if point == "read.after.error":
            for number in range(6):
                self._send(f"s{number}", fails=0, works_s=0.06 + 0.03 * number)
            self._loop.advance(0.02)
        self._armed.append(point)
        self._provoke(kind)

    def _insist(self) -> None:
        """Bring about what the armed points wait for; arm others if they have struck."""
        if self._armed:
            for point in list(self._armed):
                self._provoke(point.split(".")[0])
        else:
            self._arm(self._chance.choice(AIMED))
        for _ in range(10):
            self._step()
        self._loop.advance(LEASE_S / 2)
        self._fleet.check()

    def _provoke(self, kind: str) -> None:
        """Do what makes a call of a kind likely."""
        if kind in ("claim", "attempts", "release", "leave", "survey"):
            self._drain(counts=False)
        elif kind in ("meta", "info", "connect", "subscribe"):
            self._grow(counts=False)
            if kind != "meta":
                self._cut(counts=False)
        elif kind in ("fail", "bury"):
            self._send(self._pick_scope(), fails=99)
        elif kind == "emit":
            self._send(self._pick_scope(), kind="tell")
        elif kind == "load":
            self._send(f"new{self._sent}")
        elif kind == "refill":
            scope_id = self._pick_scope()
            for _ in range(2 * min(8, self._config.scope_waiting)):
                self._send(scope_id)
        elif kind == "length":
            self._loop.advance(61.0)
        elif kind in ("commit", "send", "read", "unblock"):
            self._send(self._pick_scope())
            if kind == "unblock":
                self._drain(counts=False)

    def _hit(self, point: str) -> None:
        self._struck += 1
        self.verdict.hits[point] += 1
        self._network.note("HIT", point)

    def strike(self, node: Node, kinds: Sequence[str]) -> str | None:
        """See `network.Strikes`."""
        if "read" in kinds and node.name in self._held_up:
            self._held_up.discard(node.name)
            self._hit("read.after.delay")
            return "after.delay"
        for point in self._armed:
            kind, _, fate = point.partition(".")
            if kind in kinds and (node.name != PRODUCER) == (kind != "send"):
                if node.name != PRODUCER and node.name not in self._fleet.members:
                    return None
                self._armed.remove(point)
                self._hit(point)
                if point == "read.after.error":
                    # What is read anew then is held up, while commits are acknowledged.
                    self._held_up.add(node.name)
                return fate
        return None

    def stall(self, node: Node) -> None:
        """See `network.Strikes`."""
        member = self._fleet.members.get(node.name)
        if member is not None:
            self._freeze(member)

    def crash(self, node: Node) -> None:
        """See `network.Strikes`."""
        member = self._fleet.members.get(node.name)
        if member is not None:
            self._kill(member)

    def arrived(self, fields: Fields) -> None:
        """See `network.Strikes`."""
        if self._forgets and "commit" in kinds_of([fields]):
            self._forgets = False
            self._lose_soon("world.forget", self._chance.choice((0.001, 0.005, 0.02)))

    def carried_out(self, node: Node, fields: Fields, answer: Any, *, is_late: bool) -> None:
        """See `network.Strikes`."""
        script = script_of(fields)
        if script == "send":
            self._note_accepted(fields)
        elif script == "claim" and self._victim and type(answer) is list and answer[0] == 1:
            victim, self._victim = self._victim, None
            self._loop.at(0.03, lambda: self._fleet.thaw(victim))
        elif script == "release" and answer == 1:
            self._check_released(node, fields)
        elif script == "commit" and type(answer) is list and not is_late and not self._went_back:
            self._check_refusals(node, fields, answer)

    def _check_refusals(self, node: Node, fields: Fields, answer: Any) -> None:
        """As long as Redis does not go back in time, nothing is handled twice in one tenure."""
        if b"stale" in answer:
            self.find(f"{node.name} built on an old state, in a history that never changed")
        is_resent = fields[4 + int(fields[2])] == b"1"
        if not is_resent and 0 in answer and set(kinds_of([fields])) == {"commit"}:
            self.find(f"{node.name} committed what it had committed before: {answer}")

    def _check_released(self, node: Node, fields: Fields) -> None:
        """What was handled is written before a partition is released."""
        if self._went_back:
            return
        key = fields[3].replace(b"}:lease", b"}:in")
        for entry_id, flat in self._server.call("XRANGE", key, "-", "+"):
            found = dict(zip(flat[::2], flat[1::2], strict=True))
            name = f"{found[b's'].decode()} {entry_id.decode()}"
            if self._application.handled.get(name) == node.name:
                self.find(f"{node.name} released a partition before {name} was written")

    def _note_accepted(self, fields: Fields) -> None:
        key = fields[3]
        start = f"({self._newest[key]}" if key in self._newest else "-"
        for entry_id, flat in self._server.call("XRANGE", key, start, "+"):
            found = dict(zip(flat[::2], flat[1::2], strict=True))
            self._newest[key] = entry_id.decode()
            self._accepted.append(
                Accepted(
                    entry_id.decode(),
                    found[b"s"].decode(),
                    msgpack.unpackb(found[b"m"]),
                    has_mark=b"w" in found,
                    expires=b"x" in found,
                )
            )
            self._network.note("accepted", found[b"s"].decode(), entry_id.decode())

    def _any(self) -> Member | None:
        awake = self._fleet.awake()
        return self._chance.choice(awake) if awake else None

    def _freeze(self, member: Member) -> None:
        lasts_s = LEASE_S * self._chance.choice((0.4, 1.2, 1.7, 2.5))
        if not member.is_frozen and lasts_s > 2 * LEASE_S:
            self._loop.at(lasts_s - 0.001, lambda: self._check_stalled(member))
        self._fleet.freeze(member, lasts_s)

    def _check_stalled(self, member: Member) -> None:
        """Who stands still keeps nothing from the others."""
        if not member.is_frozen or member.node.is_dead:
            return
        now_ms = self._server.now_ms()
        for partition in range(PARTITIONS):
            lease = self._server.call("HMGET", f"{{sim:{partition}}}:lease", "owner", "expiry")
            if lease[0] == member.name.encode() and int(lease[1]) > now_ms:
                self.find(f"{member.name} stands still for two leases and holds {partition}")

    def _kill(self, member: Member) -> None:
        self._fleet.kill(member)
        self._loop.at(self._chance.random() * LEASE_S, self._replace)

    def _replace(self) -> None:
        if len(self._fleet.awake()) < 3 and not self._is_ending:
            self._fleet.start()

    def _crash(self) -> None:
        if member := self._any():
            self._hit("world.crash")
            self._kill(member)

    def _stall(self) -> None:
        if member := self._any():
            self._hit("world.stall")
            self._freeze(member)

    def _cut(self, *, counts: bool = True) -> None:
        if member := self._any():
            if counts:
                self._hit("world.cut")
            self._network.note("cut", member.name)
            member.node.cut()

    def _drain(self, *, counts: bool = True) -> None:
        if member := self._any():
            if counts:
                self._hit("world.drain")
            self._fleet.drain(member)
            self._loop.at(self._chance.random() * 0.2, self._replace)

    def _grow(self, *, counts: bool = True) -> None:
        if len(self._fleet.members) > 4:
            self._drain(counts=False)
        if counts:
            self._hit("world.grow")
        self._fleet.start()

    def _jump(self) -> None:
        self._hit("world.jump")
        self._server.jump(int(LEASE_S * 1000 * self._chance.choice((0.5, 1.5, 4))))

    def _scripts(self) -> None:
        self._hit("world.scripts")
        self._server.script_cache.clear()

    def _flush(self) -> None:
        self._hit("world.flush")
        self._went_back = True
        self._server.flush()
        self._accepted.clear()

    def _rollback(self) -> None:
        """Take a snapshot, and come back to it soon, as a failover to a replica that lags."""
        self._lose_soon("world.rollback", self._chance.choice((0.01, 0.05, 0.3, 1.0)))

    def _forget(self) -> None:
        """The same, and what is lost is just the next commit, which was acknowledged."""
        self._forgets = True
        for number in range(3):
            self._send(f"s{number}", fails=0)
            self._send(f"s{number}", kind="tell", fails=0)

    def _lose_soon(self, point: str, wait_s: float) -> None:
        accepted, data = list(self._accepted), self._server.snapshot()
        self._loop.at(wait_s, lambda: self._restore(accepted, data, point))

    def _restore(self, accepted: list[Accepted], data: dict[bytes, Any], point: str) -> None:
        self._hit(point)
        self._went_back = True
        self._server.restore(data)
        self._accepted = accepted
        for member in self._fleet.members.values():
            member.node.cut()
        self._producer.cut()

    def _split(self) -> None:
        """Two owners that share an epoch: who took over in a history that is lost, and after it."""
        for number in range(8):
            self._send(f"s{number}", kind="tell", fails=0, works_s=0.15)
        self._loop.advance(0.02)
        accepted, data = list(self._accepted), self._server.snapshot()
        self._drain(counts=False)

        def stop() -> None:
            if self._victim is None and (member := self._any()):
                self._victim = member
                self._fleet.freeze(member, 3 * LEASE_S)

        def restore() -> None:
            self._restore(accepted, data, "world.split")
            self._loop.at(0.01, stop)

        self._loop.at(self._chance.choice((0.08, 0.12, 0.16)), restore)

    # -- the end

    def _heal(self) -> None:
        """No more faults: whatever was begun must come to its end."""
        self._armed.clear()
        while len(self._fleet.awake()) < 2:
            self._fleet.start()
        until_s = self._loop.time() + SETTLE_S
        while self._loop.time() < until_s:
            self._loop.advance(0.5)
            self._fleet.check()
            if len(self._fleet.awake()) < 2:
                self._fleet.start()
            if not self._sending and not self._backlog() and self._is_calm():
                return
        self.find(
            f"stuck: {self._backlog()} entries and {len(self._sending)} sends after a minute; "
            f"the partitions belong to {self._owners()}"
        )

    def _is_calm(self) -> bool:
        members = self._fleet.members
        is_disturbed = any(one.is_frozen or one.is_draining for one in members.values())
        return not is_disturbed and all(owner in members for owner in self._owners())

    def _owners(self) -> list[str]:
        leases = [f"{{sim:{partition}}}:lease" for partition in range(PARTITIONS)]
        return [(self._server.call("HGET", key, "owner") or b"").decode() for key in leases]

    def _backlog(self) -> int:
        return sum(self._server.call("XLEN", f"{{sim:{one}}}:in") for one in range(PARTITIONS))

    def _end(self) -> None:
        self._is_ending = True
        self._loop.run(self._client.aclose())
        for member in list(self._fleet.members.values()):
            self._fleet.drain(member)
        self._loop.run_until(
            lambda: all(one.task.done() for one in self._fleet.members.values()), SETTLE_S
        )
        self._fleet.check()
        for name in self._fleet.members:
            self.find(f"{name} does not end though it was asked to")
        checker = Checker(self._server, self._application, MAX_ATTEMPTS, self.find)
        checker.went_back = self._went_back
        checker.may_reorder = self._went_back and self._network.is_info_forbidden
        # Nobody knows of a lease whose claim was not answered, or that is out of lost history.
        is_known = not self._went_back and not any(
            point.startswith("claim.") for point in self.verdict.hits
        )
        if is_known:
            checker.check_released(PARTITIONS)
        checker.check(
            self._accepted, lambda scope_id: partition_of(scope_id, PARTITIONS), PARTITIONS
        )
        self._check_attempts()

    def _check_attempts(self) -> None:
        for entry_id, attempt in self._application.attempts.items():
            if attempt - 1 > self._application.raised[entry_id]:
                self.find(f"{entry_id}: attempts over-counted: attempt {attempt}")


def _plan(seed: int, faults: int, chance: random.Random) -> list[str]:
    """Points of one seed: some in turn, so that all come up, and some that are aimed."""
    in_turn = [POINTS[(seed * (faults - 2) + place) % len(POINTS)] for place in range(faults - 2)]
    plan = [*in_turn, *(chance.choice(AIMED) for _ in range(2))]
    chance.shuffle(plan)
    return plan
