"""Overdue: what becomes of an attempt that takes longer than ``handler_timeout_s``."""

from __future__ import annotations

from ..errors import HandlerTimeout
from .delivery import Delivery
from .lane import Lane


def fail_overdue(lane: Lane, delivery: Delivery, limit_s: float) -> None:
    """Fail an attempt whose time is over, unless it has ended meanwhile."""
    instance = lane.instance
    if lane.is_open and instance is not None and delivery in instance.unfinished:
        lane.fail(
            instance,
            HandlerTimeout(
                f"entry {delivery.entry.id} of scope {lane.scope_id!r} was not finished within "
                f"{limit_s:g} s; make the handler quicker, or raise handler_timeout_s"
            ),
        )
