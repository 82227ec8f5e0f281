"""A cluster under faults: primaries are killed, and a range of slots moves all the time.

Workers and clients find their way by themselves. A primary that was killed comes back with its data
as the replica of the one that took its place.

Two things are not done, because Redis then loses what it had for long, whoever uses it: no node is
killed while keys that have just come to it may not have reached its replica, and none before all
nodes know who has which slot.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from wherry.broker.wire import Keys
from wherry.model import Partition

from ..clustering import DOWN, OPTIONS, Cluster, Move, ask, find_port, slot_of, wait_for
from .failover import IN_CLUSTER, now_ms
from .journal import PARTITIONS, Failover, Journal
from .owning import Lookout
from .quota import Quota
from .servers import Server

PRIMARIES = 3
NODE_TIMEOUT_MS = 2_000
BACK_AFTER_S = 2.0
"""So long after its replica has taken over a node that was killed stays away."""
BETWEEN_S = 0.3
CARRIED = 3
"""The range of slots that moves has so many partitions."""
CARRIED_AT_ONCE = 20
"""Keys. Meanwhile a partition is in two places."""


class Nodes:
    """The nodes, and what they form."""

    def __init__(self, directory: Path, program: str) -> None:
        options = [*OPTIONS, "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        self.cluster = Cluster(
            [
                Server(directory / f"node-{number}", program, find_port(), options)
                for number in range(2 * PRIMARIES)
            ]
        )
        self.url = f"redis+cluster://{self.cluster.places}"

    def start(self) -> None:
        """Start them, and wait until they agree."""
        for node in self.cluster.nodes:
            node.start()
        self.cluster.form(PRIMARIES)

    def urls(self) -> list[str]:
        """Of each that has data."""
        return [node.url for node in self.cluster.primaries()]

    def kill(self) -> None:
        """End them."""
        for node in self.cluster.nodes:
            node.kill()


class ClusterFailovers:
    """Kills a primary every so often, and moves slots meanwhile.

    Attributes:
        moves: how often slots were moved.
        carried: how many keys went with them.
    """

    def __init__(
        self,
        nodes: Nodes,
        every_s: float,
        lookout: Lookout,
        keys: Keys,
        journal: Journal,
        quota: Quota,
    ) -> None:
        self.moves = self.carried = 0
        self._cluster = nodes.cluster
        self._every_s = every_s
        self._lookout = lookout
        self._keys = keys
        self._journal = journal
        self._quota = quota
        self._one_at_a_time = asyncio.Lock()
        self._been_there_and_back = asyncio.Event()
        self._slots = {Partition(p): slot_of(keys.entries(Partition(p))) for p in range(PARTITIONS)}

    async def run(
        self,
        random_: random.Random,
        messages_done: Callable[[], float],
        on_switched: Callable[[], None],
    ) -> None:
        """Go on until everything wanted was done and all messages are sent."""
        moving = asyncio.create_task(self._move_for_ever(), name="move slots")
        # A run may end with its first failure, before which slots shall have moved, too.
        moved = asyncio.create_task(self._been_there_and_back.wait(), name="moved slots")
        try:
            await asyncio.wait([moving, moved], return_when=asyncio.FIRST_COMPLETED)
            while not moving.done() and (not self._quota.is_done() or messages_done() < 1):
                began_s = time.monotonic()
                kind = self._quota.begin(random_, set()) or IN_CLUSTER
                counts = await self._fail_over(random_, on_switched)
                self._quota.end(kind, is_done=True, counts=counts)
                left_s = max(0.0, began_s + self._every_s - time.monotonic())
                await asyncio.wait([moving], timeout=left_s)
        finally:
            moved.cancel()
            moving.cancel()
            await asyncio.wait([moving, moved])
        if not moving.cancelled():
            moving.result()

    async def _fail_over(self, random_: random.Random, on_switched: Callable[[], None]) -> bool:
        """Counts if entries that stood first before still stand there after."""
        async with self._one_at_a_time:
            view = await asyncio.to_thread(self._cluster.wait_agreed)
            victim = random_.choice([one for one in self._cluster.nodes if view[one.port].slots])
            heir = next(
                one for one in self._cluster.nodes if view[one.port].primary == view[victim.port].id
            )
            lost = {p for p, slot in self._slots.items() if view[victim.port].owns(slot)}
            before = await self._lookout.look()
            await asyncio.to_thread(_permit, heir, is_heir=False)
            cut_ms = now_ms()
            victim.kill()
            died_ms = now_ms()
        # Nobody writes to the heir before it is promoted: that is what the new history begins with.
        unfinished = await asyncio.to_thread(self._unfinished_at, heir, lost)
        await asyncio.to_thread(_permit, heir, is_heir=True)
        await asyncio.to_thread(self._cluster.wait_primary, heir)
        self._journal.fail_over(
            Failover(
                cut_ms=cut_ms,
                died_ms=died_ms,
                unfinished=frozenset(entry for entries in unfinished.values() for entry in entries),
                is_whole=False,
                partitions=frozenset(lost),
            )
        )
        on_switched()
        await asyncio.sleep(BACK_AFTER_S)
        await asyncio.to_thread(self._cluster.bring_back, victim, heir)
        first = before.first if before else {}
        return any(
            any(entry_id == first[p].decode() for _, entry_id in entries)
            for p, entries in unfinished.items()
            if p in first
        )

    def _unfinished_at(
        self, heir: Server, partitions: set[Partition]
    ) -> Mapping[Partition, Sequence[tuple[str, str]]]:
        """Scope and id of all entries of partitions at a replica that has lost its primary."""
        found: dict[Partition, list[tuple[str, str]]] = {}
        wait_for(
            lambda: ask(heir, "INFO", "replication").get("master_link_status") == "down",
            "the replica has read all that it was sent",
        )
        with redis.Redis(port=heir.port, protocol=2) as client:
            client.readonly()
            for partition in partitions:
                raw: Any = client.execute_command("XRANGE", self._keys.entries(partition), "-", "+")
                found[partition] = [
                    (fields[b"s"].decode(), entry_id.decode()) for entry_id, fields in raw
                ]
        return found

    async def _move_for_ever(self) -> None:
        """Take a range of slots from its primary to another, and back."""
        slots = self._range()
        view = await asyncio.to_thread(self._cluster.wait_agreed)
        owners = [one for one in self._cluster.nodes if view[one.port].slots]
        home = next(one for one in owners if view[one.port].owns(slots[0]))
        away = next(one for one in owners if one is not home)
        while True:
            for target in (away, home):
                is_left = True
                while is_left:
                    is_left = await self._move(slots, target)
                    await asyncio.sleep(BETWEEN_S)
            self._been_there_and_back.set()

    async def _move(self, slots: Sequence[int], towards: Server) -> bool:
        """Move slots to a node, or to the one that has taken its place; whether any are left."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._move_now, slots, towards)

    def _move_now(self, slots: Sequence[int], towards: Server) -> bool:
        try:
            view = self._cluster.view()
            if view is None:
                return True
            name = view[towards.port].primary or view[towards.port].id
            target = next((n for n in self._cluster.nodes if view[n.port].id == name), None)
            if target is None or not target.is_live or not view[target.port].slots:
                return True
            for source in self._cluster.nodes:
                mine = [slot for slot in slots if view[source.port].owns(slot)]
                if source is target or not mine:
                    continue
                if not source.is_live:
                    return True
                move = Move(self._cluster, source, target, mine)
                move.begin()
                carried = 0
                while count := move.carry(CARRIED_AT_ONCE):
                    carried += count
                move.end()
                self.moves += 1
                self.carried += carried
        except DOWN:
            return True
        return False

    def _range(self) -> Sequence[int]:
        """The shortest one that has so many partitions, all of one primary."""
        slots = sorted(self._slots.values())
        pieces = [slots[at : at + CARRIED] for at in range(len(slots) - CARRIED + 1)]
        first = self._cluster.primaries()
        view = self._cluster.wait_agreed()
        whole = [
            piece
            for piece in pieces
            if any(view[n.port].owns(piece[0]) and view[n.port].owns(piece[-1]) for n in first)
        ]
        best = min(whole, key=lambda piece: piece[-1] - piece[0])
        return range(best[0], best[-1] + 1)


def _permit(replica: Server, *, is_heir: bool) -> None:
    """Let a replica take over, or wait until it was looked at."""
    ask(replica, "CONFIG", "SET", "cluster-replica-no-failover", "no" if is_heir else "yes")
