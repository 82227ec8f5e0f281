"""ClusterLink: a link to all nodes of a cluster, each over connections of its own.

Each command goes to the node that serves the slot of its first key, and after a redirect to the
one that is named. What a node does not answer stands in the place of its answers: the commands of
the other nodes are carried out all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from ..errors import StoreRefused, StoreUnavailable, WherryError
from ..model import Partition
from .batches import Batch, NodeAway
from .cluster_past import ClusterPast
from .history import OtherHistory
from .link import Argument, Command, Link
from .redirects import Redirected, is_try_again
from .routing import Unit, plan_units
from .single import SingleLink
from .slots import Place, slot_of
from .topology import Topology

HOPS = 8
"""So often a command is sent to where another node says that it belongs."""
TRIES = 3
"""So often where a slot is between two nodes; after that it is for the caller to wait."""
TRY_AGAIN_S = 0.01
"""Before the second try; doubles."""


class _Hearing(Protocol):
    async def subscribe(self, *channels: str) -> Any: ...


class ClusterLink:
    """Implements `wherry.broker.link.Link`.

    Attributes:
        client_id: None, each connection has another.
        past: what is noticed of the nodes' histories; only for links with a connection to each.
    """

    __slots__ = (
        "_locks", "_make", "_nodes", "_topology", "_tries", "_unlisten", "client_id", "past",
    )  # fmt: skip

    def __init__(
        self, topology: Topology, make: Callable[[Place], Link], *, tries: int = TRIES
    ) -> None:
        """Use the links to nodes that ``make`` makes; those of `SingleLink` one call at a time.

        Args:
            topology: where to go.
            make: makes a link to a node.
            tries: how often something is sent whose slot is between two nodes (TRYAGAIN); the
                other commands wait for it.
        """
        self._tries = tries
        self._topology = topology
        self._make = make
        self._nodes: dict[Place, Link] = {}
        self._locks: dict[Place, asyncio.Lock] = {}
        self._unlisten: Callable[[], None] | None = None
        self.client_id: int | None = None
        self.past: ClusterPast | None = None

    @property
    def connects(self) -> int:
        """How often a connection was made beyond the first to each node, and one."""
        return 1 + sum(max(0, one.connects - 1) for one in self._nodes.values())

    def node_of(self, key: str) -> str:
        """Names the node that serves a key; "" if it is not known."""
        place = self._topology.place_of(slot_of(key))
        return "" if place is None else f"{place[0]}:{place[1]}"

    @property
    def joins_slots(self) -> bool:
        """A script may touch the keys of one slot alone."""
        return False

    async def call(self, *command: Argument) -> Any:
        """See `wherry.broker.link.Link`."""
        [answer] = await self.calls((command,))
        if isinstance(answer, WherryError):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `wherry.broker.link.Link`; that a node is away stands in the list, too.

        Commands of one slot are carried out in their order, unless they are redirected.
        """
        units, everywhere = plan_units(commands)
        batch = Batch(commands, [None] * len(commands), everywhere)
        for _ in range(HOPS):
            units = await self._round(batch, units)
            if not units:
                break
        return batch.answers

    async def call_at(self, place: Place, *command: Argument) -> Any:
        """Send a command to one node."""
        return await self._node(place).call(*command)

    async def servers(self) -> Sequence[Link]:
        """A link to each node that serves slots.

        Raises:
            StoreUnavailable: no node knows the cluster.
            StoreRefused: a login or a right is refused.
        """
        await self._topology.refresh(at_least=True)
        return [self._node(place) for place in self._topology.primaries]

    async def subscribe(self, *channels: str) -> Any:
        """Listen to channels, at whatever node answers: each hears all that is published."""
        first = await self._place_of(slot_of(channels[0]))
        others = [one for one in self._topology.primaries if one != first]
        failure: StoreUnavailable | None = None
        for place in sorted((first, *others), key=self._topology.is_resting):
            try:
                return await cast("_Hearing", self._node(place)).subscribe(*channels)
            except StoreUnavailable as error:
                self._topology.failed(place)
                failure = error
        raise failure or StoreUnavailable("no node of the cluster is known")

    async def reconnect(self) -> None:
        """See `wherry.broker.link.Link`."""
        for link in list(self._nodes.values()):
            await link.reconnect()

    async def aclose(self) -> None:
        """See `wherry.broker.link.Link`."""
        if self._unlisten is not None:
            self._unlisten()
        for link in list(self._nodes.values()):
            await link.aclose()

    async def _round(self, batch: Batch, units: Sequence[Unit]) -> list[Unit]:
        """Send units to their nodes; returns those that are to be sent again."""
        by_place: dict[Place, list[Unit]] = {}
        for unit in units:
            try:
                place = batch.asked.get(unit) or await self._place_of(unit.slot)
            except (StoreUnavailable, StoreRefused) as error:
                batch.fail([unit], error)
            else:
                by_place.setdefault(place, []).append(unit)
        if len(by_place) == 1:
            [(place, some)] = by_place.items()
            again = await self._ask(batch, place, some)
        else:
            async with asyncio.TaskGroup() as tasks:
                asking = [
                    tasks.create_task(self._ask(batch, place, some), name=f"node:{place[1]}")
                    for place, some in by_place.items()
                ]
            again = [unit for task in asking for unit in task.result()]
        if not all(self._is_settled(batch, unit) for unit in again):
            batch.tries += 1
            if batch.tries >= self._tries:
                return [unit for unit in again if self._is_settled(batch, unit)]
            await asyncio.sleep(TRY_AGAIN_S * 2 ** (batch.tries - 1))
        return again

    def _is_settled(self, batch: Batch, unit: Unit) -> bool:
        """Whether it is known where a unit that was refused has to go."""
        return not any(is_try_again(batch.answers[index]) for index in unit.indexes)

    async def _ask(self, batch: Batch, place: Place, units: Sequence[Unit]) -> list[Unit]:
        """Send units to a node; returns those that it would not take."""
        topology = self._topology
        try:
            if topology.is_resting(place):
                away = StoreUnavailable(f"{place[0]}:{place[1]} could not be reached just now")
                batch.fail(units, away)
                await topology.refresh()
                return []
            units = await self._send(batch, place, units)
        except (StoreUnavailable, StoreRefused) as error:
            batch.fail(units, _told(error))
            if isinstance(error, StoreUnavailable) and not isinstance(error, OtherHistory):
                topology.failed(place)
                await topology.refresh()
                return [unit for unit in units if unit.slot is None]  # any other node will do
            return []
        topology.answered(place)
        again: list[Unit] = []
        for unit in units:
            refusal = next(filter(_is_refusal, map(batch.answers.__getitem__, unit.indexes)), None)
            batch.asked.pop(unit, None)
            if refusal is None:
                continue
            if isinstance(refusal, Redirected):
                target = refusal.place(place)
                if refusal.is_ask:
                    batch.asked[unit] = target
                else:
                    topology.note_moved(refusal.slot, place, target)
            again.append(unit)
        if any(_is_down(batch.answers[index]) for unit in units for index in unit.indexes):
            await topology.refresh()
        return again

    async def _send(self, batch: Batch, place: Place, units: Sequence[Unit]) -> Sequence[Unit]:
        """Send units, and take the answers; returns those that were sent."""
        link = self._node(place)
        if not isinstance(link, SingleLink):
            batch.read(units, await link.calls(batch.write(units)))
            return units
        async with self._locks.setdefault(place, asyncio.Lock()):
            if self.past is not None:
                await link.connected()
                units = self._within_history(self.past, batch, place, units, link.history or "")
            if units:
                batch.read(units, await link.calls(batch.write(units)))
            return units

    def _within_history(
        self,
        past: ClusterPast,
        batch: Batch,
        place: Place,
        units: Sequence[Unit],
        history: str,
    ) -> list[Unit]:
        """The units that may be sent; the others were meant for another history."""
        slots = {unit.slot: None for unit in units if unit not in batch.asked}
        changed = past.check([slot for slot in slots if slot is not None], place, history)
        kept: list[Unit] = []
        for unit in units:
            is_asked = unit in batch.asked and unit.slot is not None
            if unit.slot in changed or (is_asked and not past.may_ask(unit.slot or 0, history)):
                name = f"{place[0]}:{place[1]}"
                batch.fail([unit], OtherHistory(f"Redis at {name} was restarted or replaced"))
            else:
                kept.append(unit)
        return kept

    async def _place_of(self, slot: int | None) -> Place:
        topology = self._topology
        place = None if slot is None else topology.place_of(slot)
        if place is None:
            await topology.refresh(at_least=True)
            if slot is not None:
                place = topology.place_of(slot)
            else:
                place = min(topology.primaries, key=topology.is_resting)
        if place is None:
            raise StoreUnavailable(f"no node of the cluster serves slot {slot}")
        return place

    def _node(self, place: Place) -> Link:
        link = self._nodes.get(place)
        if link is None:
            link = self._nodes[place] = self._make(place)
            if self.past is not None and isinstance(link, SingleLink):
                link.past = self.past.of(place)
            if self._unlisten is None:
                loop = asyncio.get_running_loop()
                self._unlisten = self._topology.listen(in_loop(loop, self._leave_replaced))
        return link

    def _leave_replaced(self) -> None:
        """Cut the calls to nodes that serve nothing any more: they may be silent for long."""
        primaries = self._topology.primaries
        for place, link in self._nodes.items():
            if place not in primaries and isinstance(link, SingleLink):
                link.cut()


def in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> Callable[[], None]:
    """The same call from any thread, as long as the loop is there."""

    def later() -> None:
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(call)
            except RuntimeError:
                return  # it was closed meanwhile

    return later


async def servers_of(link: Link) -> Sequence[Link]:
    """A link to each server that has keys of its own: the only one, or each of a cluster."""
    return await link.servers() if isinstance(link, ClusterLink) else [link]


def node_name(link: Link, key: str) -> str:
    """The node of a cluster that serves a key, as far as is known; "" where there is one server."""
    return link.node_of(key) if isinstance(link, ClusterLink) else ""


def node_of(link: Link, key_of: Callable[[Partition], str]) -> Callable[[Partition], str] | None:
    """Names the node of a cluster that serves a partition now; None where there is one server."""
    return (lambda one: node_name(link, key_of(one))) if is_cluster(link) else None


def is_cluster(link: Link) -> bool:
    """Whether keys of two partitions must not be named in one command."""
    return isinstance(link, ClusterLink)


def _told(error: WherryError) -> WherryError:
    if isinstance(error, OtherHistory) or not isinstance(error, StoreUnavailable):
        return error
    away = NodeAway(str(error))
    away.__cause__ = error
    return away


def _is_refusal(answer: object) -> bool:
    return isinstance(answer, Redirected) or is_try_again(answer)


def _is_down(answer: object) -> bool:
    return isinstance(answer, StoreUnavailable) and "CLUSTERDOWN" in str(answer)
