"""Outlet: writes messages in order, one write at a time.

What comes during a write waits, and goes with the next. One server has one outlet. In a cluster
each node has one, and a partition whose slot is on its way to another node has one of its own
meanwhile: what cannot be written holds up nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from ..broker.batches import NodeAway
from ..broker.redirects import is_try_again
from ..broker.streams import SendTerms, send_entries
from ..errors import ClientClosed, WherryError
from ..model import Outgoing, Partition
from .outgoings import Failure, Parcel
from .session import Opened, Session
from .tasks import Backoff

_WRITE_ENTRIES = 4_096
_WRITE_BYTES = 4 * 2**20
_CALL_ENTRIES = 1_024
_CALL_BYTES = 2**20
_RESEND_FOR_S = 15.0


class Hall(Protocol):
    """Whoever fills outlets."""

    is_closing: bool

    def taken(self, count: int, size_bytes: int) -> None:
        """So much waits no more, and makes room."""
        ...

    def set_aside(self, partition: Partition, parcels: Sequence[Parcel], outlet: Outlet) -> None:
        """These wait for their partition's slot to arrive; what was put behind them follows."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    """What goes to one partition in a write; no call blocks the store for long."""

    parcels: list[Parcel] = field(default_factory=lambda: [])
    count: int = 0
    size_bytes: int = 0
    is_full: bool = False

    def take(self, parcel: Parcel) -> bool:
        """Take a parcel behind the others if there is room for it, and was for all before it."""
        count = self.count + len(parcel.places)
        size_bytes = self.size_bytes + parcel.size_bytes
        self.is_full |= bool(self.parcels) and (count > _CALL_ENTRIES or size_bytes > _CALL_BYTES)
        if not self.is_full:
            self.parcels.append(parcel)
            self.count, self.size_bytes = count, size_bytes
        return not self.is_full

    def entries(self) -> list[Outgoing]:
        """What is sent."""
        return [entry for parcel in self.parcels for entry in parcel.entries()]


class Outlet:
    """Writes what is put into it.

    Attributes:
        waiting: what the next writes carry.
        pending: partition -> parcels that are not settled.
        replicas: most that was asked for since nothing waited; 0: nobody need look.
        task: writes while there is something.
    """

    __slots__ = ("_hall", "_is_apart", "_session", "pending", "replicas", "task", "waiting")

    def __init__(self, session: Session, hall: Hall, *, is_apart: bool = False) -> None:
        """Write on the link for messages; apart is a partition that was set aside."""
        self._session = session
        self._hall = hall
        self._is_apart = is_apart
        self.waiting: deque[Parcel] = deque()
        self.pending: Counter[Partition] = Counter()
        self.replicas = 0
        self.task: asyncio.Task[None] | None = None

    def put(self, parcel: Parcel) -> None:
        """Queue messages behind all that were put before; call `start` then."""
        self.waiting.append(parcel)
        self.pending[parcel.partition] += 1
        self.replicas = max(self.replicas, parcel.batch.replicas)

    def start(self) -> None:
        """See to it that what waits is written."""
        if self.task is None and self.waiting:
            self.task = self._session.tasks.start(self._run(), "client:send")

    def withdraw(self, partition: Partition, partitions: int) -> list[Parcel]:
        """Take back what waits for a partition, of so many as there are now."""
        waiting, self.waiting = self.waiting, deque()
        self._settled(waiting)
        taken: list[Parcel] = []
        for parcel in (part for one in waiting for part in one.parted(partitions)):
            if parcel.partition == partition:
                taken.append(parcel)
            else:
                self.put(parcel)
        return taken

    async def _run(self) -> None:
        parcels: list[Parcel] = []
        try:
            while self.waiting:
                parcels = self._take()
                await self._write(parcels)
                self._settled(parcels)
                parcels = []
        except BaseException as error:
            failed = ClientClosed("this client was closed while it sent the message")
            failed.__cause__ = error
            for parcel in (*parcels, *self.waiting):
                parcel.abandon(failed)
            raise
        finally:
            self.task = None
            self.replicas = 0
            self._hall.taken(
                sum(len(one.places) for one in self.waiting),
                sum(one.size_bytes for one in self.waiting),
            )
            self.waiting.clear()
            self.pending.clear()

    def _settled(self, parcels: Iterable[Parcel]) -> None:
        pending = self.pending
        for parcel in parcels:
            left = pending[parcel.partition] - 1
            if left > 0:
                pending[parcel.partition] = left
            else:
                del pending[parcel.partition]

    def _take(self) -> list[Parcel]:
        """What the next write carries: the first that wait, up to its bounds."""
        taken: list[Parcel] = []
        count = size_bytes = 0
        while self.waiting and count < _WRITE_ENTRIES and size_bytes < _WRITE_BYTES:
            parcel = self.waiting.popleft()
            count += len(parcel.places)
            size_bytes += parcel.size_bytes
            taken.append(parcel)
        self._hall.taken(count, size_bytes)
        return taken

    async def _write(self, parcels: list[Parcel]) -> None:
        """Send until each is settled: those with a message id again and again, for a while."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _RESEND_FOR_S
        backoff = Backoff()
        while parcels:
            rest: list[Parcel] = []
            try:
                opened = await self._session.current()
            except WherryError as error:
                failures = [each for one in parcels for each in one.failed(error, was_sent=False)]
                await self._session.doubt(error)
            else:
                calls, rest = _choose(opened, parcels, self._session.config.backlog)
                failures = await self._call(opened, calls)
                failures, rest = self._set_aside(failures, rest)
            wait_s = backoff.next_s()
            may_wait = not self._hall.is_closing and loop.time() + wait_s < until_s
            again: list[Parcel] = []
            for failure in failures:
                if may_wait and failure.may_resend():
                    again.append(failure.parcel)
                else:
                    failure.settle()
            # Within a partition what failed stands before what was not chosen: order is kept.
            parcels = again + rest
            if again:
                await asyncio.sleep(wait_s)

    def _set_aside(
        self, failures: list[Failure], rest: list[Parcel]
    ) -> tuple[list[Failure], list[Parcel]]:
        """Let partitions whose slot is between two nodes go their own way; what is left here.

        Nothing was carried out, so that it may be sent again without a message id, too.
        """
        if self._is_apart or self._hall.is_closing or not self._session.is_cluster:
            return failures, rest
        between = {one.parcel.partition: None for one in failures if is_try_again(one.error)}
        for partition in between:
            parcels = [one.parcel for one in failures if one.parcel.partition == partition]
            parcels += [one for one in rest if one.partition == partition]
            self._hall.set_aside(partition, parcels, self)
        return (
            [one for one in failures if one.parcel.partition not in between],
            [one for one in rest if one.partition not in between],
        )

    async def _call(self, opened: Opened, calls: dict[Partition, _Call]) -> list[Failure]:
        """One write; settles what was appended or refused, returns the others."""
        if not calls:
            return []
        wanted = 0
        if self.replicas:
            wanted = max(one.batch.replicas for call in calls.values() for one in call.parcels)
        try:
            answers, confirmed = await send_entries(
                opened.writes,
                opened.scripts.send,
                self._session.keys,
                {partition: call.entries() for partition, call in calls.items()},
                self._terms(wanted),
            )
        except WherryError as error:
            await self._session.doubt(error)
            parcels = [parcel for call in calls.values() for parcel in call.parcels]
            return [each for one in parcels for each in one.failed(error, was_sent=True)]
        failures: list[Failure] = []
        for partition, answer in answers.items():
            parcels = calls[partition].parcels
            if isinstance(answer, WherryError):
                was_sent = isinstance(answer, NodeAway)
                failures += [e for one in parcels for e in one.failed(answer, was_sent=was_sent)]
                continue
            rest = iter(answer)
            for parcel in parcels:
                part = list(islice(rest, len(parcel.places)))
                parcel.answered(part, confirmed, self._session.config.backlog)
        return failures

    def _terms(self, replicas: int) -> SendTerms:
        config = self._session.config
        # WAIT is silent meanwhile, and silence for longer than that breaks the connection.
        wait_s = min(config.replicas_timeout_s, config.socket_timeout_s / 2)
        return SendTerms(
            backlog=config.backlog,
            dedup_ttl_ms=int(config.dedup_ttl_s * 1000),
            replicas=replicas,
            replicas_timeout_ms=int(wait_s * 1000),
        )


def _choose(
    opened: Opened, parcels: Sequence[Parcel], backlog: int
) -> tuple[dict[Partition, _Call], list[Parcel]]:
    """What goes in one write, by partition, and what is left."""
    calls: dict[Partition, _Call] = {}
    rest: list[Parcel] = []
    for put in parcels:
        order = put.batch.order
        if put.batch.done.cancelled():
            continue
        for parcel in put.parted(opened.partitions):
            if order is not None and order.error is not None:
                parcel.settle(order.error)
            elif order is not None and parcel.partition in order.refused:
                parcel.refuse(backlog)
            elif not calls.setdefault(parcel.partition, _Call()).take(parcel):
                rest.append(parcel)
    return calls, rest
