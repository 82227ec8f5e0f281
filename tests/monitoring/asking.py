"""Asking over HTTP as bare as it gets: one connection, one question, one answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.cli.commands import Running
from tests.e2e.rig import until


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: str
    body: str

    def json(self) -> Any:
        return json.loads(self.body)

    def samples(self) -> list[Sample]:
        families = text_string_to_metric_families(self.body)
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The one sample of a name that has these labels, among others."""
        found = [
            one.value
            for one in self.samples()
            if one.name == f"wherry_{name}" and labels.items() <= one.labels.items()
        ]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]


def address_of(worker: Running) -> str:
    """Where a worker that logs JSON lines says it listens."""
    [event] = [one for one in worker.events if one["event"] == "probes and metrics are served"]
    return event["address"]


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=2**20)
    host, _, port = address.removeprefix("http://").rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=2**20)


async def say(address: str, data: bytes, within_s: float = 10.0) -> Answer:
    """Send bytes and read the answer to its end."""
    async with asyncio.timeout(within_s):
        reader, writer = await connect(address)
        try:
            writer.write(data)
            raw = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
    head, _, body = raw.decode().partition("\r\n\r\n")
    return Answer(int(head.split(" ", 2)[1]), head, body)


async def get(address: str | Path, path: str, within_s: float = 10.0) -> Answer:
    return await say(str(address), f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), within_s)


async def turned(address: str, path: str, status: int, within_s: float) -> Answer:
    """Wait until a probe answers with this status."""

    async def has_turned() -> Answer | None:
        answer = await get(address, path)
        return answer if answer.status == status else None

    return await until(has_turned, within_s)
