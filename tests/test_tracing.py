"""What headers say of a trace, and that nothing is made where nobody has chosen a tracer."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace

from wherry.tracing import carried, current_headers, find_tracer, trace_id_of, trace_of

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def test_context_is_carried_and_nothing_else():
    headers = {"traceparent": PARENT, "tracestate": "a=1", "user": "x"}
    assert carried(headers) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert carried({"traceparent": PARENT}) == {"traceparent": PARENT}
    assert trace_of(headers) == {"trace": TRACE_ID}


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"tracestate": "a=1"},
        {"traceparent": PARENT.encode()},
        {"traceparent": 7},
        {"traceparent": "00-xyz"},
        {"traceparent": PARENT.upper()},
        {"traceparent": f"{PARENT}-{'x' * 600}"},
    ],
)
def test_what_is_no_context_is_not_carried(headers: dict[str, Any] | None):
    assert carried(headers) == {}


def test_odd_state_does_not_spoil_the_context():
    assert carried({"traceparent": PARENT, "tracestate": ["a"]}) == {"traceparent": PARENT}
    assert trace_id_of({"traceparent": PARENT}) == TRACE_ID


def test_without_a_provider_there_is_no_tracer():
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert find_tracer() is None
    assert current_headers() == {}
