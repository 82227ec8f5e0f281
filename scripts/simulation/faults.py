"""Faults: which strike, and what they do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wherry.model import partition_of

from .checking import Accepted
from .fleet import Member
from .network import PRODUCER, Node
from .points import CALL_POINTS, POINTS, kinds_of, script_of
from .server import Fields
from .watch import Watch
from .world import LEASE_S, PARTITIONS, World

_OFTEN = ("commit", "emit", "read", "claim", "renew", "fail")
AIMED = (
    *(point for point in CALL_POINTS if point.split(".")[0] in _OFTEN),
    *("world.crash", "world.stall", "world.cut"),
    *4 * ("world.rollback", "world.forget", "world.split", "read.after.error"),
)
"""What hurts most: two faults of each seed are among these."""


@dataclass(eq=False)
class _Fork:
    """A history that is to be lost.

    Attributes:
        key: of the lease that changes hands in it.
        accepted: what was accepted before it.
        data: the state before it.
        first: who took over in it.
    """

    key: bytes
    accepted: list[Accepted]
    data: dict[bytes, Any]
    first: Member | None = None


def make_plan(seed: int, faults: int, chance: random.Random, aims: Sequence[str]) -> list[str]:
    """Points of one seed: some in turn, so that all come up, and two that are aimed at.

    Whoever aims at something else than what hurts most wants nothing but that.
    """
    if aims is not AIMED:
        return [chance.choice(aims) for _ in range(faults)]
    in_turn = [POINTS[(seed * (faults - 2) + place) % len(POINTS)] for place in range(faults - 2)]
    plan = [*in_turn, *(chance.choice(aims) for _ in range(2))]
    chance.shuffle(plan)
    return plan


class Faults:
    """The faults of one seed; implements `network.Strikes`.

    Attributes:
        armed: points that wait for a call.
        struck: how many faults have struck.
    """

    def __init__(self, aims: Sequence[str]) -> None:
        self.armed: list[str] = []
        self.struck = 0
        self._world: World
        self._watch: Watch
        self._aims = aims
        self._forgets = False
        self._held_up: dict[str, int] = {}
        self._fork: _Fork | None = None

    def rule(self, world: World) -> None:
        """Strike in a world."""
        self._world = world
        self._watch = Watch(world)

    def arm(self, point: str) -> None:
        """Let a fault strike: at once, or at the next call that fits."""
        self._world.network.note("arm", point)
        kind, _, what = point.partition(".")
        if kind == "world":
            getattr(self, f"_{what}")()
            return
        if point == "read.after.error":
            for number in range(6):
                self._world.send(f"s{number}", fails=0, works_s=0.06 + 0.03 * number)
            self._world.loop.advance(0.02)
        self.armed.append(point)
        self._provoke(kind)

    def insist(self) -> None:
        """Bring about what the armed points wait for; arm others if they have struck."""
        if self.armed:
            for point in list(self.armed):
                self._provoke(point.split(".")[0])
        else:
            self.arm(self._world.chance.choice(self._aims))
        for _ in range(10):
            self._world.step()
        self._world.loop.advance(LEASE_S / 2)
        self._world.fleet.check()

    def _provoke(self, kind: str) -> None:
        """Do what makes a call of a kind likely."""
        if kind in ("claim", "attempts", "release", "leave", "survey"):
            self._drain(counts=False)
        elif kind in ("meta", "info", "connect", "subscribe"):
            self._grow(counts=False)
            if kind != "meta":
                self._cut(counts=False)
        elif kind in ("fail", "bury"):
            self._world.send(self._world.pick_scope(), fails=99)
        elif kind == "emit":
            self._world.send(self._world.pick_scope(), kind="tell")
        elif kind == "load":
            self._world.send(f"new{self._world.sent}")
        elif kind == "refill":
            scope_id = self._world.pick_scope()
            for _ in range(2 * min(8, self._world.config.scope_waiting)):
                self._world.send(scope_id)
        elif kind == "length":
            self._world.loop.advance(61.0)
        elif kind in ("commit", "send", "read", "unblock"):
            self._world.send(self._world.pick_scope())
            if kind == "unblock":
                self._drain(counts=False)

    def _hit(self, point: str) -> None:
        self.struck += 1
        self._world.verdict.hits[point] += 1
        self._world.network.note("HIT", point)

    def strike(self, node: Node, kinds: Sequence[str]) -> str | None:
        """See `network.Strikes`."""
        if "read" in kinds and node.name in self._held_up:
            self._held_up[node.name] -= 1
            if not self._held_up[node.name]:
                del self._held_up[node.name]
                self._hit("read.after.delay")
                return "after.delay"
        for point in self.armed:
            kind, _, fate = point.partition(".")
            if kind in kinds and (node.name != PRODUCER) == (kind != "send"):
                if node.name != PRODUCER and node.name not in self._world.fleet.members:
                    return None
                self.armed.remove(point)
                self._hit(point)
                if point == "read.after.error":
                    # What is read anew then is held up, while commits are acknowledged: by the
                    # second read, as nobody looks at the answer to the first on a new connection.
                    self._held_up[node.name] = 2
                return fate
        return None

    def stall(self, node: Node) -> None:
        """See `network.Strikes`."""
        member = self._world.fleet.members.get(node.name)
        if member is not None:
            self._freeze(member)

    def crash(self, node: Node) -> None:
        """See `network.Strikes`."""
        member = self._world.fleet.members.get(node.name)
        if member is not None:
            self._kill(member)

    def arrived(self, fields: Fields) -> None:
        """See `network.Strikes`."""
        if self._forgets and "commit" in kinds_of([fields]):
            self._forgets = False
            self._lose_soon("world.forget", self._world.chance.choice((0.001, 0.005, 0.02)))

    def carried_out(self, node: Node, fields: Fields, answer: Any, *, is_late: bool) -> None:
        """See `network.Strikes`."""
        script = script_of(fields)
        if script == "send":
            self._watch.note_accepted(fields)
        elif script == "claim" and type(answer) is list and answer[0] == 1:
            self._watch.note_claimed(node, fields)
            if self._fork is not None and fields[3] == self._fork.key:
                self._claimed(self._fork, node)
        elif script == "release" and answer == 1:
            self._watch.check_released(node, fields)
        elif (
            script == "commit"
            and type(answer) is list
            and not is_late
            and not self._world.went_back
        ):
            self._watch.check_refusals(node, fields, answer)

    def _any(self) -> Member | None:
        awake = self._world.fleet.awake()
        return self._world.chance.choice(awake) if awake else None

    def _freeze(self, member: Member) -> None:
        lasts_s = LEASE_S * self._world.chance.choice((0.4, 1.2, 1.7, 2.5))
        if not member.is_frozen and lasts_s > 2 * LEASE_S:
            self._world.loop.at(lasts_s - 0.001, lambda: self._watch.check_stalled(member))
        self._world.fleet.freeze(member, lasts_s)

    def _kill(self, member: Member) -> None:
        self._world.fleet.kill(member)
        self._world.loop.at(self._world.chance.random() * LEASE_S, self._replace)

    def _replace(self) -> None:
        if len(self._world.fleet.awake()) < 3 and not self._world.is_ending:
            self._world.fleet.start()

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
            self._world.network.note("cut", member.name)
            member.node.cut()

    def _drain(self, *, counts: bool = True) -> None:
        if member := self._any():
            if counts:
                self._hit("world.drain")
            self._world.fleet.drain(member)
            self._world.loop.at(self._world.chance.random() * 0.2, self._replace)

    def _grow(self, *, counts: bool = True) -> None:
        if len(self._world.fleet.members) > 4:
            self._drain(counts=False)
        if counts:
            self._hit("world.grow")
        self._world.fleet.start()

    def _jump(self) -> None:
        self._hit("world.jump")
        self._world.server.jump(int(LEASE_S * 1000 * self._world.chance.choice((0.5, 1.5, 4))))

    def _scripts(self) -> None:
        self._hit("world.scripts")
        self._world.server.script_cache.clear()

    def _flush(self) -> None:
        self._hit("world.flush")
        self._world.went_back = True
        self._world.server.flush()
        self._world.accepted.clear()

    def _rollback(self) -> None:
        """Take a snapshot, and come back to it soon, as a failover to a replica that lags."""
        self._lose_soon("world.rollback", self._world.chance.choice((0.01, 0.05, 0.3, 1.0)))

    def _forget(self) -> None:
        """The same, and what is lost is just the next commit, which was acknowledged."""
        self._forgets = True
        for number in range(3):
            self._world.send(f"s{number}", fails=0)
            self._world.send(f"s{number}", kind="tell", fails=0)

    def _lose_soon(self, point: str, wait_s: float) -> None:
        accepted, data = list(self._world.accepted), self._world.server.snapshot()
        self._world.loop.at(wait_s, lambda: self._restore(accepted, data, point))

    def _restore(self, accepted: list[Accepted], data: dict[bytes, Any], point: str) -> None:
        self._hit(point)
        self._world.went_back = True
        self._world.server.restore(data)
        self._world.accepted = accepted
        for member in self._world.fleet.members.values():
            member.node.cut()
        self._world.producer.cut()

    def _split(self) -> None:
        """Two owners that share an epoch: who took over in a history that is lost, and after it."""
        for number in range(8):
            self._world.send(f"s{number}", kind="tell", fails=0, works_s=0.15)
        self._world.loop.advance(0.02)
        key = f"{{sim:{partition_of('s0', PARTITIONS)}}}:lease"
        owner = self._world.fleet.members.get(
            (self._world.server.call("HGET", key, "owner") or b"").decode()
        )
        if owner is not None:
            fork = _Fork(key.encode(), list(self._world.accepted), self._world.server.snapshot())
            self._fork = fork
            self._kill(owner)

    def _claimed(self, fork: _Fork, node: Node) -> None:
        member = self._world.fleet.members.get(node.name)
        if fork.first is None and member is not None:
            fork.first = member
            self._world.loop.at(0.06, lambda: self._take_back(fork, member))
        elif fork.first is not None and member is not fork.first:
            self._fork = None
            self._world.loop.at(0.03, lambda: fork.first and self._world.fleet.thaw(fork.first))

    def _take_back(self, fork: _Fork, first: Member) -> None:
        """Go back to before the takeover, of which the new owner, in mid-work, knows for long."""
        self._world.fleet.freeze(first, 3 * LEASE_S)
        self._restore(fork.accepted, fork.data, "world.split")
