"""A namespace that has too few partitions is left for another one, as docs/operations.md tells.

Workers are processes, and the commands are typed as they stand on the page. Producers send all the
time, and each is switched in its turn.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import textwrap
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Project, Running
from tests.e2e.rig import rig, until
from tests.examples.processes import ROOT
from wherry import Client

APPLICATION = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    numbers = scope["durable"].setdefault("numbers", [])
    while True:
        message = await receive()
        await asyncio.sleep(0.04)
        numbers.append(message["number"])
        await send({"type": "seen", "number": message["number"]})
"""
OLD = ("shop.worker:application", "--durable-state", "--namespace", "shop")
QUICK = {"WHERRY_LEASE_S": "2", "WHERRY_BEAT_S": "0.3", "WHERRY_REPLY_LENGTH": "10000"}
PRODUCERS = 3
SCOPES = 4  # of each producer
PACE_S = 0.03  # quicker than the application: the old namespace is not empty when it is left
BEFORE = 30  # messages to each scope before the switch, and after it at least


def section() -> str:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    return page.split("\n## More than 64 workers\n")[1].split("\n## ")[0]


def commands() -> list[list[str]]:
    """What the page types, in order."""
    return [
        shlex.split(line)[1:] for line in re.findall(r"^ +\$ (wherry .*)$", section(), re.MULTILINE)
    ]


def copy_states() -> Callable[[str, str, str], int]:
    """The function of the page."""
    [code] = re.findall(r"^ +```python\n(.*?)^ +```$", section(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(code), names)  # noqa: S102 - the page's own snippet
    return names["copy_states"]


@dataclass
class Producer:
    """Sends numbers to its scopes, first to one namespace and then to the other."""

    name: str
    url: str
    sent: dict[str, int] = field(default_factory=dict)
    switched: asyncio.Event = field(default_factory=asyncio.Event)
    told_to_switch: asyncio.Event = field(default_factory=asyncio.Event)
    told_to_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        self.sent = {f"{self.name}-{number}": 0 for number in range(SCOPES)}
        await self._send("shop", self.told_to_switch)
        self.switched.set()
        await self._send("shop-wide", self.told_to_end)

    async def _send(self, namespace: str, until_told: asyncio.Event) -> None:
        async with Client(self.url, namespace=namespace) as client:
            first = min(self.sent.values())
            while not until_told.is_set() or min(self.sent.values()) < first + BEFORE:
                for scope, number in self.sent.items():
                    await client.send(scope, {"type": "n", "number": number})
                    self.sent[scope] = number + 1
                await asyncio.sleep(PACE_S)


@asynccontextmanager
async def producing(url: str) -> AsyncGenerator[list[Producer]]:
    async with asyncio.TaskGroup() as tasks:
        producers = [Producer(f"device-{number}", url) for number in range(PRODUCERS)]
        for one in producers:
            tasks.create_task(one.run(), name=f"producer:{one.name}")
        yield producers


async def answers(url: str, namespace: str, partitions: int, scope: str) -> list[int]:
    async with rig(url, namespace=namespace, partitions=partitions) as seen:
        return await seen.numbers(scope)


class Fleets:
    """Both fleets, and whoever types the page's commands."""

    def __init__(self, project: Project, running: ExitStack) -> None:
        self._project = project
        self._running = running

    async def start(self, *arguments: str) -> Running:
        worker = await asyncio.to_thread(self._project.start_worker, *arguments, **QUICK)
        self._running.callback(worker.kill)
        return worker

    async def type(self, *words: str) -> Any:
        """Run a command to its end; what it says, as JSON where that was asked for."""
        done = await asyncio.to_thread(self._project.run, *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.mark.limit_s(180)
async def test_fleet_moves_to_more_partitions_by_the_commands_of_the_page(
    redis_url: str, tmp_path: Path
):
    (tmp_path / "shop").mkdir()
    project = Project(tmp_path, redis_url)
    project.write("shop/worker.py", APPLICATION)
    run, pause, status, resume, purge = commands()
    with ExitStack() as running:
        fleets = Fleets(project, running)
        old = [await fleets.start(*OLD) for _ in range(2)]
        async with producing(redis_url) as producers:
            new = [await fleets.start(*run[1:])]
            await fleets.type(*pause)
            new.append(await fleets.start(*run[1:]))
            # One after another: for a while some send here and some there.
            for one in producers:
                one.told_to_switch.set()
                await one.switched.wait()

            async def is_empty() -> bool:
                return (await fleets.type(*status))["backlog"] == 0

            await until(is_empty, 60)
            begun = {scope: count for one in producers for scope, count in one.sent.items()}
            for scope in begun:
                assert await answers(redis_url, "shop-wide", 256, scope) == [], "not yet"
            assert await asyncio.to_thread(copy_states(), redis_url, "shop", "shop-wide") == len(
                begun
            )
            await fleets.type(*resume)
            for one in old:
                assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0
            for one in producers:
                one.told_to_end.set()
        async with rig(redis_url, namespace="shop-wide", partitions=256) as seen:
            await seen.drained(60)
            sent = {scope: count for one in producers for scope, count in one.sent.items()}
            for scope, count in sent.items():
                first = await answers(redis_url, "shop", 64, scope)
                later = await seen.numbers(scope)
                assert len(first) >= BEFORE <= len(later)
                assert first + later == list(range(count)), scope
                assert (await seen.state(scope))["numbers"] == list(range(count)), scope
        await fleets.type(*purge)
        async with rig(redis_url, namespace="shop-wide", partitions=256) as seen:
            assert await seen.link.call("KEYS", "{shop}*") == []
            assert await seen.link.call("KEYS", "{shop:*") == []
            assert await seen.numbers(next(iter(sent)))
        for one in new:
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0


def test_page_has_the_commands_in_their_order():
    assert [words[0] for words in commands()] == ["run", "pause", "status", "resume", "purge"]
