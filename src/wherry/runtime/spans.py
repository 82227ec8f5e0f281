"""Spans: one around each attempt at a message, where the process has chosen a tracer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..tracing import Handling, describe_message, find_tracer
from .delivery import Delivery, Timer
from .meter import Meter
from .tracked import Watch

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


def choose_watch(namespace: str, meter: Meter | None) -> Watch | None:
    """Who looks at messages: makes spans where there is a tracer, and lets a meter look, too."""
    tracer = find_tracer()
    return meter if tracer is None else Spans(tracer, namespace, meter)


class Spans:
    """Looks at every message; implements `wherry.runtime.tracked.Watch`.

    Attributes:
        due: always the next one.
    """

    def __init__(self, tracer: Tracer, namespace: str, meter: Meter | None) -> None:
        """Make spans, and let the meter look at those messages that are its turn."""
        self.due = 1
        self._tracer = tracer
        self._namespace = namespace
        self._meter = meter

    def opened(self, delivery: Delivery) -> None:
        """Begin a span, in the task that handles the message."""
        self.due = 1
        entry = delivery.entry
        about = describe_message(
            self._namespace, entry.scope_id, entry.partition, entry.id, delivery.attempt
        )
        handling = Handling(self._tracer, about, entry.extras.headers)
        entry.extras = replace(entry.extras, headers=handling.headers)
        meter = self._meter
        if meter is not None:
            meter.due -= 1
            if not meter.due:
                meter.opened(delivery)
        delivery.timer = _Span(handling, delivery.timer)

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """Say why the attempt that ends has failed."""
        if isinstance(delivery.timer, _Span):
            delivery.timer.handling.fail(error)


class _Span:
    """Stands in a delivery's ``timer`` and ends the span."""

    __slots__ = ("_timer", "handling")

    def __init__(self, handling: Handling, timer: Timer | None) -> None:
        self.handling = handling
        self._timer = timer

    def cancel(self) -> None:
        """The attempt is over."""
        self.handling.end()
        if self._timer is not None:
            self._timer.cancel()
