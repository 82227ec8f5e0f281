"""Durable: what a message does to the durable state of its scope."""

from __future__ import annotations

from typing import Any, cast

from ..broker.commits import StateChange
from ..broker.wire import pack
from ..errors import MessageError
from .holding import Track
from .lane import Lane


def change_of(lane: Lane, track: Track, limit_bytes: int) -> StateChange:
    """What becomes of the state of a lane's scope.

    Raises:
        MessageError: it cannot be packed, or is too large.
    """
    instance = lane.instance
    durable: object = instance.scope.get("durable") if instance is not None else None
    if durable is not None and not isinstance(durable, dict):
        raise MessageError(
            f"scope['durable'] of {lane.scope_id!r} is no dict; change the dict, "
            "or put another dict in its place"
        )
    state = cast("dict[str, Any] | None", durable)
    packed = pack(state, "durable state of scope", lane.scope_id) if state else b""
    if len(packed) > limit_bytes:
        raise MessageError(
            f"durable state of scope {lane.scope_id!r} has {len(packed)} bytes, more than "
            f"{limit_bytes}; keep less, or raise state_bytes"
        )
    before, version = track.state or (b"", "")
    return StateChange(version, None if packed == before else packed)
