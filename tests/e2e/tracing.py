"""A process with a tracer of its own: a client and a worker whose spans and logs are printed.

``python -m tests.e2e.tracing URL``: a provider is chosen once for a process, so tests do not choose
one in theirs. What is printed: one JSON object.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.e2e.rig import QUICK, rig
from wherry import Client, Config, Worker
from wherry.cli.logs import configure_logs, mark_where_traced
from wherry.hooks import Hooks
from wherry.runtime.vitals import Vitals

APPLICATION = logging.getLogger("application")
CUT_OFF = asyncio.Event()


async def app(scope: Any, receive: Any, send: Any) -> None:
    tracer = trace.get_tracer("application")
    while True:
        message = await receive()
        headers = message["wherry"]["headers"]
        with tracer.start_as_current_span("work"):
            APPLICATION.warning("at work on %s", message["type"])
        if message["type"] == "bad" and message["wherry"]["attempt"] == 1:
            raise ValueError("no")
        if message["type"] == "hang" and not CUT_OFF.is_set():
            CUT_OFF.set()
            await asyncio.Event().wait()
        await send({"type": "done", "seen": headers.get("traceparent", "")})


def shown(spans: Sequence[ReadableSpan]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in spans:
        context = one.get_span_context()
        assert context is not None
        found.append(
            {
                "name": one.name,
                "kind": one.kind.name,
                "trace": f"{context.trace_id:032x}",
                "span": f"{context.span_id:016x}",
                "parent": f"{one.parent.span_id:016x}" if one.parent else "",
                "status": one.status.status_code.name,
                "attributes": dict(one.attributes or {}),
                "events": [event.name for event in one.events],
            }
        )
    return found


async def main(url: str) -> dict[str, Any]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(trace)s %(message)s"))
    logging.getLogger().addHandler(handler)
    mark_where_traced()
    worker = Worker(app, url, Config(**QUICK), hooks=Hooks())
    worker.vitals = Vitals(worker.worker_id, Config(**QUICK))
    replies: dict[str, Any] = {}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.arun())
        await worker.ready()
        async with Client(url, namespace="test") as client:
            with trace.get_tracer("caller").start_as_current_span("caller"):
                await client.request("asked", {"type": "good"})
                await client.send_many([("many", {"type": "good"})] * 2)
                await client.send("retried", {"type": "bad"})
            await client.send("alone", {"type": "good"})
            await client.send("cut off", {"type": "hang"})
            await CUT_OFF.wait()
            async with rig(url) as seen:
                lease = seen.keys.lease(seen.partition("cut off"))
                await seen.link.call("HSET", lease, "token", "of somebody else", "expiry", "1")
            answered = {"asked": 1, "many": 2, "retried": 1, "alone": 1, "cut off": 1}
            for scope, count in answered.items():
                found: list[Any] = []
                async with asyncio.timeout(20):
                    async for reply in client.replies(scope, follow=True):
                        found += [reply] if reply is not None else []
                        if len(found) == count:
                            break
                replies[scope] = [
                    {"headers": dict(one.headers), "message": one.message} for one in found
                ]
        worker.request_stop()
        await running
    meter = worker.vitals.meter
    assert meter is not None
    return {
        "spans": shown(exporter.get_finished_spans()),
        "replies": replies,
        "lines": lines.getvalue().splitlines(),
        "handled": meter.handling.cumulative()[-1],
    }


if __name__ == "__main__":
    configure_logs("info", json_lines=True)
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
