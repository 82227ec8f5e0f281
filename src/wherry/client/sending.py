"""Sending: what is sent in one tick of the loop shares a write; order of calls is order of effect.

What waits is bounded. It is written by outlets, see `wherry.client.outlets`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..broker.cluster import node_name
from ..errors import ClientClosed, WherryError
from ..model import Outgoing, Partition
from .outgoings import Batch, Order, Parcel, Sent, part, read_answer
from .outlets import Outlet
from .session import Session


class Sender:
    """Takes messages and has them written, many at once; implements `wherry.client.outlets.Hall`.

    Attributes:
        is_closing: nothing more is taken.
    """

    __slots__ = (
        "_count", "_entrance", "_outlets", "_room", "_routes", "_session", "_size_bytes",
        "is_closing",
    )  # fmt: skip

    def __init__(self, session: Session) -> None:
        """Write within ``in_flight`` entries and ``in_flight_bytes``."""
        self._session = session
        self._outlets: dict[str, Outlet] = {"": Outlet(session, self)}
        self._routes: dict[Partition, Outlet] = {}  # in a cluster
        self._count = 0
        self._size_bytes = 0
        self._entrance = asyncio.Lock()
        self._room = asyncio.Event()
        self.is_closing = False

    async def put(
        self, entries: Sequence[Outgoing], order: Order | None = None, *, replicas: int = 0
    ) -> Batch:
        """Queue messages behind all that were put before; waits while there is no room.

        Raises:
            ClientClosed: nothing more is taken.
            WherryError: the nodes of a cluster are not known.
        """
        done = asyncio.get_running_loop().create_future()
        batch = Batch(entries, [None] * len(entries), len(entries), done, order, replicas)
        # The lock is fair, and free it is taken without a pause: order of calls is kept.
        async with self._entrance:
            if self._session.known is None and self._session.is_cluster:
                await self._session.opened()
            while not self._has_room():
                self._room.clear()
                await self._room.wait()
            if self.is_closing:
                raise ClientClosed("this client was closed; the message was not sent")
            known = self._session.known
            parcels = part(batch, range(len(entries)), known.partitions if known else 0)
            self._count += len(entries)
            self._size_bytes += sum(one.size_bytes for one in parcels)
            used: dict[Outlet, None] = {}
            for parcel in parcels:
                outlet = self._route(parcel.partition)
                outlet.put(parcel)
                used[outlet] = None
        for outlet in used:
            outlet.start()
        return batch

    async def send(self, entry: Outgoing, *, replicas: int = 0) -> Sent:
        """Send one message.

        Raises:
            WherryError: what became of it instead.
        """
        batch = await self.put([entry], replicas=replicas)
        await batch.done
        result = batch.results[0]
        assert result is not None, "a batch is done when each of its messages is settled"
        if isinstance(result, WherryError):
            raise result
        return read_answer(result)

    async def aclose(self) -> None:
        """Write what waits, once, and take nothing more."""
        self.is_closing = True
        self._room.set()
        while tasks := [one.task for one in self._all() if one.task is not None]:
            await asyncio.wait(tasks)

    def _has_room(self) -> bool:
        config = self._session.config
        return (
            self.is_closing
            or not self._count
            or (self._count < config.in_flight and self._size_bytes < config.in_flight_bytes)
        )

    def _route(self, partition: Partition) -> Outlet:
        """The outlet of a partition: that of what waits for it, so that order is kept."""
        if not self._session.is_cluster:
            return self._outlets[""]
        before = self._routes.get(partition)
        if before is not None and partition in before.pending:
            return before
        opened = self._session.known
        assert opened is not None, "it was opened before"
        name = node_name(opened.link, self._session.keys.entries(partition))
        outlet = self._outlets.get(name)
        if outlet is None:
            outlet = self._outlets[name] = Outlet(self._session, self)
        self._routes[partition] = outlet
        return outlet

    def taken(self, count: int, size_bytes: int) -> None:
        """See `wherry.client.outlets.Hall`."""
        self._count -= count
        self._size_bytes -= size_bytes
        self._room.set()

    def set_aside(self, partition: Partition, parcels: Sequence[Parcel], outlet: Outlet) -> None:
        """See `wherry.client.outlets.Hall`."""
        apart = Outlet(self._session, self, is_apart=True)
        waiting = outlet.withdraw(partition, parcels[0].partitions)
        for parcel in (*parcels, *waiting):
            apart.put(parcel)
        # What was taken for a write waits again.
        self._count += sum(len(one.places) for one in parcels)
        self._size_bytes += sum(one.size_bytes for one in parcels)
        self._routes[partition] = apart
        apart.start()

    def _all(self) -> set[Outlet]:
        return {*self._outlets.values(), *self._routes.values()}
