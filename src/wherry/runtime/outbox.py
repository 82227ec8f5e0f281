"""Outbox: what an application sends, on its way to the committer.

Replies are held until the message is finished, or written as they come if the producer or the
application asked for it. What is sent outside any message is written at once, without a cause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from ..broker.commits import Emit, size_of
from ..broker.wire import check_type, pack_event
from ..config import Config
from ..errors import MessageError, RepliesTooLarge, ScopeClosed
from ..hooks import Hooks
from ..model import Message
from ..tracing import trace_of
from .asgi import ACK, FLUSH
from .clock import Clock
from .committer import Committer
from .delivery import Delivery, reply_headers
from .holding import Track
from .instance import Instance
from .lane import Lane

HELD_WARNING_S = 1.0
_OURS = frozenset({ACK, FLUSH})
"""Events that are not for whoever reads the replies."""


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
        self._message_bytes = config.message_bytes
        self._takes_acks = config.ack_mode != "off"
        self._most, self._most_bytes = config.replies_held, config.replies_held_bytes
        self._committer = committer
        self._attempt_of = attempt_of
        self._clock = clock
        self._hooks = hooks

    def take(self, lane: Lane, message: Message) -> Awaitable[None] | None:
        """Take one event of a lane's instance.

        Returns:
            What to await before the next one, if replies are written as they come; they are
            queued already.

        Raises:
            ScopeClosed: the instance has ended or its partition is lost.
            MessageError: no ASGI event, does not travel, or too large.
            RepliesTooLarge: more is held for the message than may be.
        """
        track: Track | None = lane.tracking
        instance = lane.instance
        if track is None or instance is None or track.holding.is_lost:
            raise ScopeClosed(f"scope {lane.scope_id!r} is not served here any more")
        unfinished = instance.unfinished
        delivery = unfinished[0] if unfinished else None
        kind = message.get("type")
        if type(kind) is not str:
            kind = check_type(kind)
        if kind in _OURS:
            return self._obey(track, instance, message)
        if "wherry" in message:
            delivery = _cause_of(instance, message)
            message = {key: value for key, value in message.items() if key != "wherry"}
        packed = pack_event(kind, message, self._message_bytes)
        if delivery is None:
            return self._emit(track, None, [packed])
        if delivery.is_streamed:
            delivery.replies = [*delivery.replies, packed]
            return self._emit_held(track, delivery)
        replies, size = delivery.replies, delivery.replies_bytes + len(packed)
        if size > self._most_bytes or (replies and len(replies) >= self._most):
            raise RepliesTooLarge(
                f"scope {lane.scope_id!r} holds {len(replies)} replies "
                f"({delivery.replies_bytes} bytes) for entry {delivery.entry.id}, as many as it "
                "may; send {'type': 'wherry.flush'} in between, or raise replies_held"
            )
        if replies:
            replies.append(packed)
        else:
            delivery.replies = [packed]
            delivery.held_at_s = self._clock.now_s()
        delivery.replies_bytes = size
        return None

    def _obey(self, track: Track, instance: Instance, message: Message) -> Awaitable[None] | None:
        """Do what an event asks of Wherry itself."""
        if message["type"] == ACK:
            if not self._takes_acks:
                raise MessageError(
                    "message.ack was sent, but ack_mode is off; set it to auto or on"
                )
            _acknowledge(instance, message)
            return None
        delivery = _cause_of(instance, message)
        if delivery is None:
            return None
        delivery.is_streamed = True
        return self._emit_held(track, delivery)

    def _emit_held(self, track: Track, delivery: Delivery) -> Awaitable[None] | None:
        replies, delivery.replies, delivery.replies_bytes = delivery.replies, (), 0
        return self._emit(track, delivery, replies) if replies else None

    def _emit(
        self, track: Track, delivery: Delivery | None, replies: Sequence[bytes]
    ) -> Awaitable[None]:
        holding = track.holding
        holding.emits += 1
        size = size_of(replies, sum(map(len, replies)))
        if delivery is None:
            operation = Emit(holding.emits, "", track.scope_id, replies, size_bytes=size)
        else:
            entry = delivery.entry
            operation = Emit(
                holding.emits,
                entry.id,
                track.scope_id,
                replies,
                entry.extras.inbox,
                self._attempt_of(track, delivery),
                delivery.emitted,
                size,
                reply_headers(entry),
            )
            delivery.emitted += len(replies)
        self._committer.put(track, operation)
        return self._committer.wait_room(holding)


def tell_of_long_holding(hooks: Hooks, delivery: Delivery, now_s: float) -> None:
    """Say once for each application how to stream; replies were held for over a second."""
    if not delivery.is_streamed:
        hooks.warn_once(
            "replies were held for over a second, as they are until the message is finished; "
            "to stream them send {'type': 'wherry.flush'} from the application, or "
            "send(stream=True) from the client",
            scope=delivery.entry.scope_id,
            entry=delivery.entry.id,
            duration_s=round(now_s - delivery.held_at_s, 3),
            **trace_of(delivery.entry.extras.headers),
        )


def _acknowledge(instance: Instance, message: Message) -> None:
    instance.acks = True
    entry_id = message.get("id")
    if entry_id is not None and not instance.acknowledge(str(entry_id)):
        raise MessageError(f"message.ack names {entry_id!r}, which this instance has not open")


def _cause_of(instance: Instance, message: Message) -> Delivery | None:
    """The delivery that an event names, or else the oldest open one.

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
