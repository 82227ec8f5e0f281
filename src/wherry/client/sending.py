"""Sending: what is sent in one tick of the loop shares a write; order of calls is order of effect.

One write is under way at a time. What comes meanwhile waits, bounded, and goes with the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..broker.streams import SendTerms, send_entries
from ..errors import BacklogFull, ClientClosed, NotReplicated, StoreUnavailable, WherryError
from ..model import EntryId, Outgoing, Partition
from .session import Opened, Session
from .tasks import Backoff

_WRITE_ENTRIES = 4_096
_WRITE_BYTES = 4 * 2**20
_CALL_ENTRIES = 1_024
_CALL_BYTES = 2**20
_RESEND_FOR_S = 15.0
_OVERHEAD_BYTES = 64


class Sent(NamedTuple):
    """An appended message.

    Attributes:
        entry_id: its id, or that of the first sending of its message id.
        is_new: whether this sending appended it.
    """

    entry_id: EntryId
    is_new: bool


@dataclass(slots=True, eq=False)
class Order:
    """Binds batches together: what is behind a refused message of its partition is refused.

    Attributes:
        refused: partitions that refused one.
        error: what ended it all; nothing further is sent.
    """

    refused: set[Partition] = field(default_factory=lambda: set())
    error: WherryError | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Messages that one caller waits for.

    Attributes:
        entries: the messages.
        results: what became of each; complete when ``done`` is.
        left: how many are open.
        done: for the caller; cancelled when it has gone, and then what was not sent is not.
        order: shared with the caller's other batches.
        replicas: how many are to have it.
    """

    entries: Sequence[Outgoing]
    results: list[Sent | WherryError | None]
    left: int
    done: asyncio.Future[None]
    order: Order | None
    replicas: int = 0


class _Slot(NamedTuple):
    entry: Outgoing
    batch: Batch
    place: int
    size_bytes: int

    def refuse(self, partition: Partition, backlog: int) -> None:
        if self.batch.order is not None:
            self.batch.order.refused.add(partition)
        self.settle(BacklogFull(partition, backlog))

    def settle(self, result: Sent | WherryError) -> None:
        batch = self.batch
        batch.results[self.place] = result
        batch.left -= 1
        if batch.left == 0 and not batch.done.done():
            batch.done.set_result(None)


class Sender:
    """Takes messages and writes them, many at once."""

    __slots__ = (
        "_entrance", "_is_closing", "_replicas", "_room",
        "_session", "_size_bytes", "_task", "_waiting",
    )  # fmt: skip

    def __init__(self, session: Session) -> None:
        """Send on the session's link, within ``in_flight`` entries and ``in_flight_bytes``."""
        self._session = session
        self._waiting: deque[_Slot] = deque()
        self._size_bytes = 0
        self._entrance = asyncio.Lock()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._replicas = 0  # most that was asked for since nothing waited; 0: nobody need look

    async def put(
        self, entries: Sequence[Outgoing], order: Order | None = None, *, replicas: int = 0
    ) -> Batch:
        """Queue messages behind all that were put before; waits while there is no room."""
        done = asyncio.get_running_loop().create_future()
        batch = Batch(entries, [None] * len(entries), len(entries), done, order, replicas)
        self._replicas = max(self._replicas, replicas)
        # The lock is fair, and free it is taken without a pause: order of calls is kept.
        async with self._entrance:
            while not self._has_room():
                self._room.clear()
                await self._room.wait()
            if self._is_closing:
                raise ClientClosed("this client was closed; the message was not sent")
            for place, entry in enumerate(entries):
                size_bytes = len(entry.message) + len(entry.scope_keys) + len(entry.headers)
                self._waiting.append(_Slot(entry, batch, place, size_bytes + _OVERHEAD_BYTES))
                self._size_bytes += size_bytes + _OVERHEAD_BYTES
        if self._task is None:
            self._task = self._session.tasks.start(self._run(), "client:send")
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
        return result

    async def aclose(self) -> None:
        """Write what waits, once, and take nothing more."""
        self._is_closing = True
        self._room.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _has_room(self) -> bool:
        config = self._session.config
        return (
            self._is_closing
            or not self._waiting
            or (len(self._waiting) < config.in_flight and self._size_bytes < config.in_flight_bytes)
        )

    async def _run(self) -> None:
        slots: list[_Slot] = []
        try:
            while self._waiting:
                slots = self._take()
                await self._write(slots)
        finally:
            self._task = None
            self._replicas = 0
            for slot in (*slots, *self._waiting):
                if slot.batch.results[slot.place] is None:
                    slot.settle(ClientClosed("this client was closed while it sent the message"))
            self._waiting.clear()
            self._room.set()

    def _take(self) -> list[_Slot]:
        """What the next write carries: the first that wait, up to its bounds."""
        taken: list[_Slot] = []
        size = 0
        while self._waiting and len(taken) < _WRITE_ENTRIES and size < _WRITE_BYTES:
            slot = self._waiting.popleft()
            size += slot.size_bytes
            taken.append(slot)
        self._size_bytes -= size
        self._room.set()
        return taken

    async def _write(self, slots: list[_Slot]) -> None:
        """Send until each is settled: those with a message id again and again, for a while."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _RESEND_FOR_S
        backoff = Backoff()
        while slots:
            rest: list[_Slot] = []
            try:
                opened = await self._session.current()
            except WherryError as error:
                failures = [_Failure(slot, error, was_sent=False) for slot in slots]
            else:
                chosen, rest = _choose(opened, slots, self._session.config.backlog)
                failures = await self._call(opened, chosen)
            wait_s = backoff.next_s()
            may_wait = not self._is_closing and loop.time() + wait_s < until_s
            again: list[_Slot] = []
            for failure in failures:
                if may_wait and failure.may_resend():
                    again.append(failure.slot)
                else:
                    failure.settle()
            # Within a partition what failed stands before what was not chosen: order is kept.
            slots = again + rest
            if again:
                await asyncio.sleep(wait_s)

    async def _call(self, opened: Opened, chosen: dict[Partition, list[_Slot]]) -> list[_Failure]:
        """One write; settles what was appended or refused, returns the others."""
        config = self._session.config
        if not chosen:
            return []
        wanted = 0
        if self._replicas:
            wanted = max(slot.batch.replicas for slots in chosen.values() for slot in slots)
        try:
            answers, confirmed = await send_entries(
                opened.link,
                opened.scripts.send,
                self._session.keys,
                {partition: [slot.entry for slot in slots] for partition, slots in chosen.items()},
                self._terms(wanted),
            )
        except WherryError as error:
            return [
                _Failure(slot, error, was_sent=True) for slots in chosen.values() for slot in slots
            ]
        failures: list[_Failure] = []
        for partition, answer in answers.items():
            slots = chosen[partition]
            if isinstance(answer, WherryError):
                failures += [_Failure(slot, answer, was_sent=False) for slot in slots]
                continue
            for slot, entry_id in zip(slots, answer, strict=True):
                if not entry_id:
                    slot.refuse(partition, config.backlog)
                elif slot.batch.replicas:
                    slot.settle(_confirm(EntryId(entry_id), slot.batch.replicas, confirmed))
                elif entry_id[0] == "=":
                    slot.settle(Sent(EntryId(entry_id[1:]), is_new=False))
                else:
                    slot.settle(Sent(EntryId(entry_id), is_new=True))
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


@dataclass(slots=True, eq=False)
class _Failure:
    """A message that was not seen to be appended.

    Attributes:
        slot: the message.
        error: why.
        was_sent: whether it may have been appended all the same.
    """

    slot: _Slot
    error: WherryError
    was_sent: bool

    def may_resend(self) -> bool:
        return isinstance(self.error, StoreUnavailable) and bool(self.slot.entry.message_id)

    def settle(self) -> None:
        error = self.error
        if isinstance(error, StoreUnavailable):
            outcome = (
                "the message may or may not have been appended; with a message_id it can be sent "
                "again without harm"
                if self.was_sent
                else "the message was not appended"
            )
            raised = StoreUnavailable(f"{error}; {outcome}")
            raised.__cause__ = error
            error = raised
        if self.slot.batch.order is not None:
            self.slot.batch.order.error = error
        self.slot.settle(error)


def _confirm(answer: str, wanted: int, confirmed: int | WherryError) -> Sent | NotReplicated:
    """What became of a message that replicas were to have."""
    entry_id = EntryId(answer.removeprefix("="))
    if isinstance(confirmed, WherryError):
        return NotReplicated(entry_id, wanted, 0, str(confirmed))
    if confirmed < wanted:
        return NotReplicated(entry_id, wanted, confirmed)
    return Sent(entry_id, is_new=answer[0] != "=")


def _choose(
    opened: Opened, slots: Sequence[_Slot], backlog: int
) -> tuple[dict[Partition, list[_Slot]], list[_Slot]]:
    """What goes in one write, by partition, and what is left: no call blocks the store for long."""
    chosen: dict[Partition, list[_Slot]] = {}
    sizes: dict[Partition, int] = {}
    rest: list[_Slot] = []
    for slot in slots:
        if slot.batch.done.cancelled():
            continue
        partition = opened.partition_of(slot.entry.scope_id)
        order = slot.batch.order
        if order is not None and order.error is not None:
            slot.settle(order.error)
        elif order is not None and partition in order.refused:
            slot.refuse(partition, backlog)
        else:
            size = sizes.get(partition, 0)
            calls = chosen.setdefault(partition, [])
            if len(calls) < _CALL_ENTRIES and size < _CALL_BYTES:
                calls.append(slot)
                sizes[partition] = size + slot.size_bytes
            else:
                sizes[partition] = _CALL_BYTES
                rest.append(slot)
    return {partition: slots for partition, slots in chosen.items() if slots}, rest
