"""Tracked: how a worker runs the lanes of its scopes; the pool's policy in a worker.

Every message of a lane is an entry of a partition that this worker owns. What an instance
does with it becomes operations for the committer.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Protocol, cast

from ..broker.attempts import pack_row
from ..broker.commits import Commit, Fail, size_of
from ..broker.entries import read_body
from ..broker.wire import unpack
from ..config import Config
from ..errors import StoreError
from ..hooks import Hooks
from ..model import PLAIN, AttemptsRow, ScopeId
from .burials import Burials
from .clock import Clock
from .committer import Committer
from .delivery import Delivery, expiry_of, has_expired, reply_headers
from .durable import change_of
from .holding import Holdings, Track
from .inbox import Item
from .instance import NOTHING, Instance
from .lane import Lane, Outlet
from .outbox import HELD_WARNING_S, tell_of_long_holding
from .overdue import fail_overdue
from .policy import Gate
from .reasons import reason_of, traceback_of
from .scopes import NO_HEADERS, Scopes
from .turns import Turns


class States(Protocol):
    """Loads durable states; see `wherry.runtime.loader.Loader`."""

    async def load(self, track: Track) -> tuple[bytes, str]:
        """Packed state and version of a scope."""
        ...


class Watch(Protocol):
    """Looks at messages as they are handled; see `wherry.runtime.meter.Meter`.

    Attributes:
        due: so many messages further it looks at one.
    """

    due: int

    def opened(self, delivery: Delivery) -> None:
        """A message was taken, and this one is due; ``due`` is above 0 again after it."""
        ...

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """An attempt has failed; its timer is told after this."""
        ...


class Tracked:
    """Implements `wherry.runtime.pool.Policy`.

    Attributes:
        committer: set for each run, before the first partition is claimed.
        states: the same.
        burials: gives up what failed too often; the same.
        gate: says when lanes may start, while a suspect must run alone.
        watch: looks at messages as they are handled, None if nobody does.
        outlet: where nobody has overridden ``application_send``, what takes its place; the same.
        scopes: makes what instances are called with.
    """

    def __init__(self, config: Config, holdings: Holdings, clock: Clock, hooks: Hooks) -> None:
        """Work on the worker's holdings."""
        self.committer: Committer
        self.states: States
        self.burials: Burials
        self.gate: Gate | None = None
        self.watch: Watch | None = None
        self.outlet: Outlet | None = None
        self.scopes = Scopes(config)
        self._config = config
        self._holdings = holdings
        self._clock = clock
        self._hooks = hooks
        self._turns = Turns(config.concurrency)

    @property
    def busy(self) -> int:
        """How many lanes handle a message."""
        return self._turns.busy

    def created(self, lane: Lane) -> None:
        """Tie a new lane to the track of its scope; a scope of no held partition has none."""
        if isinstance(lane.scope_id, str):
            holding = self._holdings.find(ScopeId(lane.scope_id))
            if holding is not None:
                track = lane.tracking = holding.track(ScopeId(lane.scope_id))
                track.lane = lane

    def begin(self, lane: Lane, item: Item) -> Any:
        """Start on an item if it is for the lane's instance and may be handled now."""
        if self.gate is not None and not self.gate.admits(lane, item):
            return NOTHING
        if type(item) is not Delivery:
            return item if lane.is_busy or self._turns.take(lane) else NOTHING
        track: Track | None = lane.tracking
        entry = item.entry
        extras = entry.extras
        if track is None or track.holding.is_lost:
            return NOTHING
        if extras is not PLAIN or track.keys:
            if extras.scope_keys != track.keys:
                return NOTHING
            if extras.expires_unix_ms and self._expire(lane, track):
                head = lane.input_queue.peek()
                return NOTHING if head is None else self.begin(lane, head)
        if not lane.is_busy:
            if not self._turns.take(lane):
                return NOTHING
            lane.is_busy = True
        if limit_s := self._config.handler_timeout_s:
            item.timer = asyncio.get_running_loop().call_later(
                limit_s, fail_overdue, lane, item, limit_s
            )
        watch = self.watch
        if watch is not None:
            watch.due -= 1
            if not watch.due:
                watch.opened(item)
                extras = entry.extras
        # Who was given it before may have changed it: a retry gets a fresh one.
        message = entry.message if "wherry" not in entry.message else read_body(entry.body)
        message["wherry"] = {
            "id": entry.id,
            "attempt": item.attempt,
            "headers": extras.headers or NO_HEADERS,
        }
        return message

    def fits(self, lane: Lane, item: Item) -> bool:
        """Whether the lane's instance has the scope keys that the entry asks for."""
        if not isinstance(item, Delivery):
            return True
        # A lane may outlive the tenure in which it was made, if user code has asked for it.
        track = cast("Track | None", lane.tracking)
        return (
            track is not None
            and not track.holding.is_lost
            and item.entry.extras.scope_keys == track.keys
        )

    def rest(self, lane: Lane) -> bool:
        """Whether a resting lane may be ended: nothing of its scope is under way."""
        track: Track | None = lane.tracking
        if self.gate is not None:
            self.gate.look()
        return track is None or not track.outstanding

    def idled(self, lane: Lane) -> None:
        """A lane is no longer busy: let the next one start."""
        self._turns.give_back()

    async def prepare(self, lane: Lane) -> Instance:
        """A new instance with a fresh scope, when its backoff is over and its state is loaded."""
        track = cast("Track | None", lane.tracking)
        self._holdings.changed.set()  # it was admitted: others may be, too
        if track is None or track.holding.is_lost:
            _take_deliveries(lane)  # they are in the stream of a partition that is not ours
            return Instance(lane, lane.scope)
        if track.outstanding and track.holding.attempts:
            # What is counted against its head is in Redis before that starts.
            await track.wait_settled()
        pause_s = track.not_before_s - self._clock.now_s()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._expire(lane, track)
        head = lane.input_queue.peek()
        track.keys = head.entry.extras.scope_keys if isinstance(head, Delivery) else b""
        scope = lane.scope = self.scopes.make(lane.scope_id, track.keys)
        refusal = None
        if self._config.durable_state:
            try:
                scope["durable"] = await self._load(track)
            except (StoreError, ValueError) as error:
                refusal = error
        if self.gate is not None:
            await self.gate.enter(lane)
            self._expire(lane, track)
        return Instance(lane, scope, acks=self._config.ack_mode == "on", refusal=refusal)

    async def _load(self, track: Track) -> dict[str, Any]:
        if track.state is None:
            await track.wait_settled()
            track.state = await self.states.load(track)
        packed, _ = track.state
        return cast("dict[str, Any]", unpack(packed)) if packed else {}

    def finish(self, lane: Lane, delivery: Delivery) -> None:
        """Queue the commit of a delivery.

        Raises:
            MessageError: the durable state cannot be packed or is too large.
        """
        track: Track = lane.tracking
        entry, replies = delivery.entry, delivery.replies
        if replies and self._clock.now_s() > delivery.held_at_s + HELD_WARNING_S:
            tell_of_long_holding(self._hooks, delivery, self._clock.now_s())
        if delivery.timer is not None:
            delivery.stop_timer()
        extras, state = entry.extras, None
        if self._config.durable_state:
            state = change_of(lane, track, self._config.state_bytes)
            if state.packed is not None:
                track.state = state.packed, entry.id if state.packed else ""
        if (
            len(replies) == 1
            and (extras is PLAIN or not (extras.mark or extras.inbox or extras.headers))
            and not delivery.emitted
            and (state is None or state.packed)
        ):
            self.committer.answer(track, entry.id, replies[0], state)
            return
        headers = reply_headers(entry)
        size = delivery.replies_bytes + len(headers) + len((state and state.packed) or b"")
        operation = Commit(
            entry.id,
            entry.scope_id,
            replies,
            extras.inbox,
            state,
            self.attempt_of(track, delivery) if extras.mark else "",
            delivery.emitted,
            size_of(replies, size),
            headers,
        )
        self.committer.put(track, operation)

    def _expire(self, lane: Lane, track: Track) -> bool:
        """Finish what has expired while it waited its turn; whether anything has."""
        has_any = False
        while (
            isinstance(head := lane.input_queue.peek(), Delivery)
            and head.entry.extras.expires_unix_ms
            and has_expired(head.entry, self._clock.redis_ms())
        ):
            lane.input_queue.take()
            self.committer.put(track, expiry_of(head.entry))
            has_any = True
        return has_any

    def attempt_of(self, track: Track, delivery: Delivery) -> str:
        """``<epoch>.<run>`` of a delivery: no two runs of an entry share it."""
        holding = track.holding
        if not delivery.run:
            holding.runs += 1
            delivery.run = holding.runs
        return f"{holding.ledger.epoch}.{delivery.run}"

    def failed(self, lane: Lane, delivery: Delivery, error: BaseException) -> bool:
        """Write a failed attempt down; whether the message is to be tried again."""
        if self.watch is not None:
            self.watch.failed(delivery, error)
        delivery.stop_timer()
        track = cast("Track", lane.tracking)
        entry, reason = delivery.entry, reason_of(error)
        if delivery.attempt >= self._config.max_attempts:
            self.burials.give_up(track, delivery, reason, traceback_of(error))
            if track.is_parked:
                waiting = [delivery, *_take_deliveries(lane)]
                track.holding.park(track, [one.entry.id for one in waiting])
            return False
        backoff_s = self._backoff_s(delivery.attempt)
        track.not_before_s = self._clock.now_s() + backoff_s
        before = track.holding.attempts.get(entry.id) or AttemptsRow()
        row = track.holding.attempts[entry.id] = before._replace(
            attempts=delivery.attempt,
            not_before_unix_ms=self._clock.redis_ms() + int(backoff_s * 1000),
            error=reason,
            probe="",
        )
        operation = Fail(entry.id, entry.scope_id, pack_row(row), len(reason) + 256)
        self.committer.put(track, operation)
        delivery.begin_anew()
        delivery.attempt += 1
        self._holdings.tallies.retried += 1
        return True

    def _backoff_s(self, attempt: int) -> float:
        longest = min(
            self._config.retry_backoff_max_s, self._config.retry_backoff_s * 2 ** (attempt - 1)
        )
        return longest * random.uniform(0.5, 1.0)

    def interrupted(self, lane: Lane, delivery: Delivery) -> None:
        """Give a delivery that was cut off to the scope's next lane, if there is to be one."""
        track = cast("Track", lane.tracking)
        if not track.holding.is_lost and not track.holding.ledger.is_draining:
            delivery.begin_anew()
            lane.input_queue.put_back(delivery)

    def ended(self, lane: Lane) -> None:
        """Untie a lane from its track."""
        track = cast("Track | None", lane.tracking)
        if track is not None and track.lane is lane:
            track.lane = None
            track.holding.drop_if_unused(track)
        if self.gate is not None:
            self.gate.ended(lane)
        self._turns.pass_on()

    def evicted(self) -> None:
        """Count it."""
        self._holdings.tallies.evictions += 1

    def abandoned(self, lane: Lane) -> None:
        """Its partition is for another process, where the scope need not wait for this lane."""
        track = cast("Track | None", lane.tracking)
        if track is not None:
            self._holdings.avoid(track.holding.partition, lane)
        if lane.is_busy:
            lane.is_busy = False
            self.idled(lane)
        if self.gate is not None:
            self.gate.look()


def _take_deliveries(lane: Lane) -> list[Delivery]:
    """Take what is in a stream out of an inbox; what user code has put there by hand stays."""
    items = lane.input_queue.drain()
    for item in items:
        if not isinstance(item, Delivery):
            lane.input_queue.put_nowait(item)
    return [item for item in items if isinstance(item, Delivery)]
