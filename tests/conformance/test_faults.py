"""Connections break, servers die and come back: work resumes by itself, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.parts import at_work, check, client, seeing, totals
from tests.e2e.rig import Notes, rig, until
from tests.stores import NAMESPACE, Place
from wherry import Client, NotReplicated, StoreUnavailable

SCOPES = [f"s{n}" for n in range(16)]
PATIENCE: dict[str, Any] = {"replicas_timeout_s": 0.5}


class Producer:
    """Sends numbers to each scope without a pause, each until it is known to be accepted."""

    def __init__(self, client_: Client, replicas: int) -> None:
        self._client = client_
        self._replicas = replicas
        self.sent: dict[str, list[int]] = {scope: [] for scope in SCOPES}
        self._is_enough = False

    @property
    def count(self) -> int:
        return sum(map(len, self.sent.values()))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for scope in SCOPES:
                tasks.create_task(self._run(scope))

    def stop(self) -> None:
        self._is_enough = True

    async def _run(self, scope: str) -> None:
        number = 0
        while not self._is_enough:
            number += 1
            await self._send(scope, number)
            self.sent[scope].append(number)
            await asyncio.sleep(0.005)

    async def _send(self, scope: str, number: int) -> None:
        message, name = {"type": "n", "number": number}, f"{scope}-{number}"
        while True:
            try:
                await self._client.send(scope, message, message_id=name, replicas=self._replicas)
            except (StoreUnavailable, NotReplicated):
                await asyncio.sleep(0.05)
            else:
                return


async def _strained(place: Place, fault: Any, hooks: Notes) -> None:
    """Let a fault happen while two workers work on what is sent all the time."""
    async with seeing(place) as seen, client(place, **PATIENCE) as sender:
        producer = Producer(sender, place.replicas)
        # A fault of a cluster's node may concern the partitions of only one of them.
        async with at_work(totals, place, hooks=hooks), at_work(totals, place, hooks=hooks):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(producer.run())
                await until(lambda: producer.count > 100)
                await asyncio.to_thread(fault)
                before = producer.count
                await until(lambda: producer.count > before + 200, 40)
                producer.stop()
            async with rig(place.url, namespace=NAMESPACE) as again:
                await check(again, producer.sent)
        assert seen.partitions == again.partitions


@pytest.mark.without("memory", why="there are no connections to it")
async def test_broken_connections_lose_and_double_nothing(place: Place):
    def cut() -> None:
        assert place.cut() > 2
        for _ in range(3):  # while they connect again
            place.cut()

    await _strained(place, cut, Notes())


@pytest.mark.limit_s(120)
@pytest.mark.without("memory", why="it dies with its process")
async def test_server_that_dies_under_load_loses_and_doubles_nothing(place: Place):
    """It comes back with its data; or its replica takes over, which has what was confirmed."""
    hooks = Notes()
    await _strained(place, place.strike, hooks)
    assert hooks.count("partition lost"), "history is another one"


@pytest.mark.limit_s(120)
@pytest.mark.without("memory", "embedded", why="their server does not go by itself")
async def test_worker_and_client_wait_for_a_store_that_is_not_there(place: Place):
    """At the start, and later; what is sent meanwhile is accepted when the store is back."""
    hooks = Notes()
    place.go()
    try:
        async with asyncio.TaskGroup() as tasks, client(place, **PATIENCE) as sender:
            producer = Producer(sender, place.replicas)
            tasks.create_task(producer.run())
            running = at_work(totals, place, hooks=hooks)
            starting = tasks.create_task(running.__aenter__())
            await until(lambda: hooks.count("waits for Redis"))
            await asyncio.to_thread(place.come)
            await starting
            await until(lambda: producer.count > 100, 40)
            await asyncio.to_thread(place.go)
            before = hooks.count("waits for Redis")
            await until(lambda: hooks.count("waits for Redis") > before)
            await asyncio.to_thread(place.come)
            count = producer.count
            await until(lambda: producer.count > count + 100, 40)
            producer.stop()
        async with seeing(place) as seen:
            await check(seen, producer.sent)
        await running.__aexit__(None, None, None)
    finally:
        place.heal()
