"""Outbox: what an application sends, on its way to the committer.

Replies are held until the message is finished, or written as they come if the producer or the
application asked for it. What is sent outside any message is written at once, without a cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from ..broker.commits import Emit
from ..broker.wire import pack_message
from ..config import Config
from ..errors import MessageError, RepliesTooLarge, ScopeClosed
from ..hooks import Hooks
from ..model import Message
from .asgi import ACK, FLUSH
from .clock import Clock
from .committer import Committer
from .delivery import Delivery
from .holding import Track
from .instance import Instance
from .lane import Lane

HELD_WARNING_S = 1.0


class Outbox:
    """Takes the events of all instances of a worker."""

    def __init__(
        self,
        config: Config,
        committer: Committer,
        attempt_of: Callable[[Track, Delivery], str],
        clock: Clock,
        hooks: Hooks,
    ) -> None:
        """Feed a committer; ``attempt_of`` names the run of a delivery."""
        self._config = config
        self._committer = committer
        self._attempt_of = attempt_of
        self._clock = clock
        self._hooks = hooks

    async def send(self, lane: Lane, message: Message) -> None:
        """Take one event of a lane's instance.

        Raises:
            ScopeClosed: the instance has ended or its partition is lost.
            MessageError: no ASGI event, does not travel, or too large.
            RepliesTooLarge: more is held for the message than may be.
        """
        track = cast("Track | None", lane.tracking)
        instance = lane.instance
        if track is None or instance is None or track.holding.is_lost:
            raise ScopeClosed(f"scope {lane.scope_id!r} is not served here any more")
        kind = message.get("type")
        if kind == ACK:
            if self._config.ack_mode == "off":
                raise MessageError(
                    "message.ack was sent, but ack_mode is off; set it to auto or on"
                )
            _acknowledge(instance, message)
            return
        delivery = _cause_of(instance, message)
        if kind == FLUSH:
            if delivery is not None:
                delivery.is_streamed = True
                await self._emit_held(track, delivery)
            return
        if "wherry" in message:
            message = {key: value for key, value in message.items() if key != "wherry"}
        packed = pack_message(message, self._config.message_bytes)
        if delivery is None:
            await self._emit(track, None, [packed])
        elif delivery.is_streamed:
            delivery.replies.append(packed)
            await self._emit_held(track, delivery)
        else:
            self._hold(lane, delivery, packed)

    def _hold(self, lane: Lane, delivery: Delivery, packed: bytes) -> None:
        if (
            len(delivery.replies) >= self._config.replies_held
            or delivery.replies_bytes + len(packed) > self._config.replies_held_bytes
        ):
            raise RepliesTooLarge(
                f"scope {lane.scope_id!r} holds {len(delivery.replies)} replies "
                f"({delivery.replies_bytes} bytes) for entry {delivery.entry.id}, as many as it "
                "may; send {'type': 'wherry.flush'} in between, or raise replies_held"
            )
        if not delivery.replies:
            delivery.held_at_s = self._clock.now_s()
        delivery.replies.append(packed)
        delivery.replies_bytes += len(packed)

    async def _emit_held(self, track: Track, delivery: Delivery) -> None:
        replies, delivery.replies, delivery.replies_bytes = delivery.replies, [], 0
        if replies:
            await self._emit(track, delivery, replies)

    async def _emit(self, track: Track, delivery: Delivery | None, replies: list[bytes]) -> None:
        holding = track.holding
        holding.emits += 1
        size = sum(map(len, replies)) + 64
        if delivery is None:
            operation = Emit(holding.emits, "", track.scope_id, replies, size_bytes=size)
        else:
            entry = delivery.entry
            operation = Emit(
                holding.emits,
                entry.id,
                track.scope_id,
                replies,
                entry.inbox,
                self._attempt_of(track, delivery),
                delivery.emitted,
                size,
            )
            delivery.emitted += len(replies)
        self._committer.put(track, operation)
        await self._committer.wait_room(holding)


def tell_of_long_holding(hooks: Hooks, delivery: Delivery, now_s: float) -> None:
    """Say once for each application how to stream, if replies were held for over a second."""
    if delivery.replies and not delivery.is_streamed:
        held_s = now_s - delivery.held_at_s
        if held_s > HELD_WARNING_S:
            hooks.warn_once(
                "replies were held for over a second, as they are until the message is finished; "
                "to stream them send {'type': 'wherry.flush'} from the application, or "
                "send(stream=True) from the client",
                scope=delivery.entry.scope_id,
                entry=delivery.entry.id,
                duration_s=round(held_s, 3),
            )


def _acknowledge(instance: Instance, message: Message) -> None:
    instance.acks = True
    entry_id = message.get("id")
    if entry_id is not None and not instance.acknowledge(str(entry_id)):
        raise MessageError(f"message.ack names {entry_id!r}, which this instance has not open")


def _cause_of(instance: Instance, message: Message) -> Delivery | None:
    """The delivery that an event answers: the one it names, or else the oldest open one.

    Raises:
        MessageError: it names one that is not open.
    """
    named = message.get("wherry")
    if isinstance(named, Mapping):
        wanted = cast("Mapping[str, Any]", named).get("id")
        for delivery in instance.unfinished:
            if delivery.entry.id == wanted:
                return delivery
        raise MessageError(f"an event names entry {wanted!r}, which this instance has not open")
    return instance.unfinished[0] if instance.unfinished else None
