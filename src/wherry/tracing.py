"""Tracing: the trace that a message belongs to, from its producer to those who read the replies.

The context travels as W3C Trace Context (``traceparent``, ``tracestate``) in the headers of
messages and of replies: https://www.w3.org/TR/trace-context/. OpenTelemetry is met here and nowhere
else, and only where the process has chosen a provider for it; without one, nothing is made and
nothing costs.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

TRACE_ID: ContextVar[str] = ContextVar("wherry_trace_id", default="")
"""Id of the trace of the message that is being handled, "" if none is; set where spans are made."""


_CARRIED = ("traceparent", "tracestate")
_LONGEST = 512
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def carried(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """What of a message's headers goes into its replies; empty if there is no valid context."""
    if not headers or not trace_id_of(headers):
        return {}
    found = {name: headers.get(name) for name in _CARRIED}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str) and 0 < len(value) <= _LONGEST
    }


def trace_id_of(headers: Mapping[str, Any] | None) -> str:
    """The trace id that headers name, "" if none."""
    parent = headers.get("traceparent") if headers else None
    found = _TRACEPARENT.fullmatch(parent) if isinstance(parent, str) else None
    return found[1] if found is not None else ""


def trace_of(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """What a log line about a message with these headers says of its trace: key ``trace``."""
    trace_id = trace_id_of(headers)
    return {"trace": trace_id} if trace_id else {}


def find_tracer() -> Tracer | None:
    """The tracer of the provider that this process has chosen; None if it has chosen none."""
    # Nobody can have chosen one without this module, and it is not imported for nothing.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return trace.get_tracer("wherry")


@contextlib.contextmanager
def producing(
    tracer: Tracer, namespace: str, scope_id: str, headers: Mapping[str, Any] | None
) -> Generator[dict[str, Any]]:
    """A span around the sending of a message.

    It belongs to the context in the headers, if they have one, else to the current one.

    Yields:
        The headers to send, with the span's context.
    """
    from opentelemetry.trace import SpanKind

    with tracer.start_as_current_span(
        f"send {namespace}",
        context=_context_in(headers),
        kind=SpanKind.PRODUCER,
        attributes=_attributes(namespace, scope_id, "send"),
    ):
        yield _inject(headers)


def current_headers() -> dict[str, Any]:
    """The current context as headers; empty if there is none."""
    return _inject(None) if find_tracer() is not None else {}


class Handled(dict[str, Any]):
    """Headers of a message that is being handled: their context is that of its span.

    Attributes:
        origin: the headers as they came, to which another attempt belongs again.
    """

    __slots__ = ("origin",)

    def __init__(self, headers: Mapping[str, Any], origin: Mapping[str, Any] | None) -> None:
        """Stand in the place of ``origin``."""
        super().__init__(headers)
        self.origin = origin


class Handling:
    """The span around one attempt at a message, current for the application until it ends."""

    __slots__ = ("_before", "_span", "_trace_id_before", "headers")

    def __init__(
        self,
        tracer: Tracer,
        attributes: Mapping[str, str | int],
        headers: Mapping[str, Any] | None,
    ) -> None:
        """Begin it, in the task that handles the message.

        Args:
            tracer: makes the span.
            attributes: of the message; see `describe_message`.
            headers: of the message; an attempt before this one may have changed them.
        """
        from opentelemetry import context, trace

        origin = headers.origin if isinstance(headers, Handled) else headers
        parent = _context_in(origin) or context.Context()
        namespace = attributes["messaging.destination.name"]
        self._span: Span = tracer.start_span(
            f"process {namespace}", parent, trace.SpanKind.CONSUMER, attributes
        )
        self._before = context.get_current()
        self._trace_id_before = TRACE_ID.get()
        context.attach(trace.set_span_in_context(self._span, parent))
        TRACE_ID.set(trace.format_trace_id(self._span.get_span_context().trace_id))
        self.headers = Handled(_inject(origin), origin)

    def fail(self, error: BaseException) -> None:
        """The attempt has failed; it is still to be ended."""
        from opentelemetry.trace import StatusCode

        self._span.record_exception(error)
        self._span.set_status(StatusCode.ERROR, type(error).__name__)

    def end(self) -> None:
        """End it. Another one that has become current since stays so."""
        from opentelemetry import context, trace

        self._span.end()
        if trace.get_current_span() is self._span:
            context.attach(self._before)
            TRACE_ID.set(self._trace_id_before)


def describe_message(
    namespace: str, scope_id: str, partition: int, entry_id: str, attempt: int
) -> dict[str, str | int]:
    """Attributes of a `Handling`."""
    return _attributes(namespace, scope_id, "process") | {
        "messaging.destination.partition.id": str(partition),
        "messaging.message.id": entry_id,
        "wherry.attempt": attempt,
    }


def _attributes(namespace: str, scope_id: str, operation: str) -> dict[str, str | int]:
    """https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/."""
    return {
        "messaging.system": "wherry",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": namespace,
        "wherry.scope": scope_id,
    }


def _context_in(headers: Mapping[str, Any] | None) -> Any:
    """The context in headers; None if there is none."""
    found = carried(headers)
    if not found:
        return None
    return _propagator().extract(found)


def _inject(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Headers with the current context in place of theirs."""
    given = {name: value for name, value in (headers or {}).items() if name not in _CARRIED}
    context: dict[str, str] = {}
    _propagator().inject(context)
    return given | context


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
