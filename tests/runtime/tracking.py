"""A pool whose messages are tracked: a policy that records, retries, gates and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from wherry.hooks import Hooks
from wherry.model import PLAIN, Entry, EntryId, Extras, Partition, ScopeId
from wherry.runtime.delivery import Delivery, deliver
from wherry.runtime.inbox import Item
from wherry.runtime.instance import NOTHING, Instance
from wherry.runtime.lane import Lane, Outlet
from wherry.runtime.policy import Gate
from wherry.runtime.pool import Pool


def delivery(scope_id: Any, number: int, keys: bytes = b"") -> Delivery:
    entry = Entry()
    entry.id = EntryId(f"{number}-0")
    entry.partition = Partition(0)
    entry.scope_id = ScopeId(str(scope_id))
    entry.message = {"type": "test", "number": number}
    entry.body = b""
    entry.size_bytes = 1
    entry.extras = Extras(scope_keys=keys) if keys else PLAIN
    return deliver(entry)


class Recording:
    """Implements `wherry.runtime.policy.Policy`.

    Attributes:
        log: what happened, in order.
        tries: how often a message is tried.
        acks: instances are in ack mode.
        may_begin: lanes may start on messages; `open_gate` sets it again.
        may_rest: lanes that have nothing to do may be ended.
        keys: scope keys of the instances, for those entries that have some.
        prepared: called before each instance; may raise.
    """

    outlet: Outlet | None = None

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.tries = 1
        self.acks = False
        self.may_begin = True
        self.may_rest = True
        self.keys: dict[Lane, bytes] = {}
        self.prepared: Callable[[], None] = lambda: None
        self.gated: list[Lane] = []
        self.gate: Gate | None = None

    def of(self, kind: str) -> list[Any]:
        return [what for one, what in self.log if one == kind]

    def open_gate(self) -> None:
        self.may_begin = True
        gated, self.gated = self.gated, []
        for lane in gated:
            lane.wake()

    def created(self, lane: Lane) -> None:
        self.log.append(("created", lane.scope_id))

    def begin(self, lane: Lane, item: Item) -> Any:
        if not self.fits(lane, item):
            return NOTHING
        if not self.may_begin and not lane.is_busy:
            self.gated.append(lane)
            return NOTHING
        if not isinstance(item, Delivery):
            return item
        return {**item.entry.message, "id": item.entry.id, "attempt": item.attempt}

    def idled(self, lane: Lane) -> None:
        self.log.append(("idled", lane.scope_id))

    def fits(self, lane: Lane, item: Item) -> bool:
        return not isinstance(item, Delivery) or item.entry.extras.scope_keys == self.keys.get(
            lane, b""
        )

    def rest(self, lane: Lane) -> bool:
        return self.may_rest

    async def prepare(self, lane: Lane) -> Instance:
        self.prepared()
        head = lane.input_queue.peek()
        self.keys[lane] = head.entry.extras.scope_keys if isinstance(head, Delivery) else b""
        return Instance(lane, {"id": lane.scope_id, "keys": self.keys[lane]}, acks=self.acks)

    def finish(self, lane: Lane, delivery: Delivery) -> None:
        number = delivery.entry.message["number"]
        self.log += [("finished", number), ("finished by", (lane.scope_id, number))]

    def failed(self, lane: Lane, delivery: Delivery, error: BaseException) -> bool:
        self.log.append(("failed", delivery.entry.message["number"]))
        delivery.attempt += 1
        return delivery.attempt <= self.tries

    def interrupted(self, lane: Lane, delivery: Delivery) -> None:
        self.log.append(("interrupted", delivery.entry.message["number"]))
        lane.input_queue.put_back(delivery)

    def evicted(self) -> None:
        pass

    def abandoned(self, lane: Lane) -> None:
        self.log.append(("abandoned", lane.scope_id))

    def ended(self, lane: Lane) -> None:
        self.log.append(("ended", lane.scope_id))


class Face:
    """Implements `wherry.runtime.face.Face`."""

    def __init__(self, application: Any, max_applications: int, end_timeout_s: float) -> None:
        self.application = application
        self.max_applications = max_applications
        self.policy = Recording()
        self.pool = Pool(self, self.policy, Hooks(), end_timeout_s)
        self.sent: list[Any] = []

    def get_or_create_application_instance(self, scope_id: Any, scope: Any) -> Any:
        return self.pool.get_or_create(scope_id, scope).input_queue

    def delete_oldest_application_instance(self) -> None:
        self.pool.end_oldest()

    async def application_send(self, scope: Any, message: Any) -> None:
        self.sent.append(message)

    def put(self, scope_id: Any, *numbers: int, keys: bytes = b"") -> Lane:
        lane = self.pool.get_or_create(scope_id, {"id": scope_id})
        for number in numbers:
            lane.input_queue.put_nowait(delivery(scope_id, number, keys))
        return lane


@asynccontextmanager
async def tracked(
    application: Any, max_applications: int = 100, end_timeout_s: float = 5.0
) -> AsyncIterator[Face]:
    """A face with its pool, which is ended on leaving."""
    face = Face(application, max_applications, end_timeout_s)
    try:
        yield face
    finally:
        await face.pool.end_all()
        left = [lane.future for lane in face.pool.leaving]
        if left:
            await asyncio.wait(left)
