"""Messages that kill the process they are handled in, among others that do not."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.e2e.rig import Rig, rig, until
from tests.e2e.test_durable import running_totals
from wherry import Client, MessageFailed
from wherry.engine.suspects import DEATH
from wherry.model import Partition

ROOT = Path(__file__).resolve().parents[2]
PROBED = "a message that may have killed a process is run alone"


class Fleet:
    """Worker processes, replaced when they die, as a supervisor would.

    Attributes:
        exits: exit code -> how many processes ended with it.
        said: what they logged: (event, entry).
    """

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        self.exits: Counter[int] = Counter()
        self.said: list[tuple[str, str]] = []
        self.running: list[Process] = []
        self._command = (sys.executable, "-m", "tests.e2e.deadly", url, json.dumps(settings))
        self._is_over = False

    async def supervise(self) -> None:
        """Keep one process running."""
        while not self._is_over:
            process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT, stdout=PIPE)
            self.running.append(process)
            assert process.stdout is not None
            try:
                async for line in process.stdout:
                    found = json.loads(line)
                    self.said.append((found["event"], found.get("entry", "")))
                self.exits[await process.wait()] += 1
            finally:
                self.running.remove(process)
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def stop(self) -> None:
        self._is_over = True
        for process in self.running:
            process.send_signal(signal.SIGTERM)

    def count(self, event: str) -> int:
        return sum(one == event for one, _ in self.said)


@asynccontextmanager
async def fleet(url: str, workers: int, **settings: Any) -> AsyncGenerator[Fleet]:
    made = Fleet(url, settings)
    async with asyncio.TaskGroup() as tasks:
        supervisors = [tasks.create_task(made.supervise()) for _ in range(workers)]
        try:
            await until(lambda: made.count("ready") >= workers, 20)
            yield made
            made.stop()
            await asyncio.wait(supervisors, timeout=20)
        finally:
            for one in supervisors:
                one.cancel()


async def owners(seen: Rig) -> int:
    return sum(bool(one) for one in await seen.owners())


@pytest.mark.limit_s(180)
async def test_the_message_that_kills_is_buried_and_no_other(redis_url: str):
    """Among 10,000 innocent ones in 200 scopes; its own scope goes on behind it."""
    scopes, messages = 200, 10_000
    async with rig(redis_url) as seen, Client(redis_url, namespace="test") as client:
        sent = [(f"s{n % scopes}", n) for n in range(messages)]
        await seen.send_many(sent[:2000])
        async with fleet(redis_url, 2) as workers:
            asking = asyncio.create_task(
                client.request("s7", {"type": "kill"}, timeout_s=150), name="asking"
            )
            await seen.send_many(sent[2000:])
            with pytest.raises(MessageFailed, match="ProcessDied") as failed:
                await asking
            await seen.drained(60)
            deaths = workers.exits[-signal.SIGSEGV]
            probes = workers.said.count((PROBED, failed.value.entry_id))
            # One that has just been started would die of the signal that asks it to drain.
            await until(lambda: workers.count("ready") == deaths + 2, 20)
        (letter,) = await seen.dead()
        assert letter["error"].decode() == DEATH
        assert letter["id"].decode() == failed.value.entry_id
        assert letter["attempts"] == b"5"
        for scope in range(scopes):
            numbers = list(range(scope, messages, scopes))
            replies = await seen.replies(f"s{scope}")
            answers = [one.message["number"] for one in replies if one.message]
            assert answers == running_totals(numbers)
            assert await seen.state(f"s{scope}") == {"total": sum(numbers)}
        # It is told before it is marked, and then its partition may be handed on before it begins.
        assert probes >= 5
        # Five until it is suspected, five probes; before that, others of its scope that were
        # finished and not yet committed may have stood in its place.
        assert 10 <= deaths <= 15
        assert set(workers.exits) == {-signal.SIGSEGV, 0}
        assert await seen.leftovers() == {seen.keys.dead(seen.partition("s7"))}


@pytest.mark.limit_s(120)
async def test_one_kill_of_a_busy_worker_makes_nobody_a_suspect(redis_url: str):
    """A thousand scopes are at work when it dies: each is counted once, none runs alone."""
    scopes = 1_000
    lasting = {"type": "n", "number": 1, "lasts_s": 3.0}
    async with rig(redis_url) as seen:
        async with fleet(redis_url, 1, in_flight_per_partition=1_024) as workers:
            await seen.send_many([(f"s{n}", lasting) for n in range(scopes)])
            await seen.send_many([(f"s{n}", 2) for n in range(scopes)])
            # Each head is at work once the durable states are loaded and the streams read.
            await until(lambda: has_read(seen, 2 * scopes), 20)
            (dying,) = workers.running
            dying.send_signal(signal.SIGKILL)
            counted = await until(lambda: crashes(seen, scopes), 20)
            assert counted == [1] * scopes
            await seen.drained(60)
            assert workers.count(PROBED) == 0
            assert workers.exits == {-signal.SIGKILL: 1}
        for scope in range(scopes):
            assert await seen.numbers(f"s{scope}") == [1, 3]
        assert await seen.leftovers() == set()


async def has_read(seen: Rig, count: int) -> bool:
    """Whether the worker that came last says that it has so many entries in hand."""
    (member,) = await seen.link.call("ZREVRANGE", seen.keys.joined, 0, 0)
    held = await seen.link.call("HGET", seen.keys.member(member.decode()), "in_flight")
    return int(held or 0) >= count


async def crashes(seen: Rig, count: int) -> list[int]:
    """The crashes of all rows, once there are so many of them."""
    found = [row["crashes"] for row in await rows(seen)]
    return found if len(found) >= count else []


@pytest.mark.limit_s(120)
async def test_suspect_that_hangs_is_let_go_on_beside_the_others(redis_url: str):
    """It was in hand at five deaths, and is innocent; it must not stop the process for ever."""
    async with rig(redis_url) as seen, fleet(redis_url, 1, probe_s=0.3) as workers:
        hanging = await seen.send("hung", {"type": "hang"})
        for death in range(1, 6):
            await until(lambda death=death: workers.count("ready") >= death, 20)
            await until(lambda: has_read(seen, 1), 20)
            workers.running[0].send_signal(signal.SIGKILL)
            await until(lambda death=death: workers.exits[-signal.SIGKILL] == death)
        overrun = "a message that runs alone takes long; it goes on beside the others"
        await until(lambda: workers.said.count((overrun, hanging)) == 1, 20)
        await seen.send_many([(f"s{n % 10}", n) for n in range(100)])
        await until(lambda: is_left(seen, 1), 20)
        assert workers.said.count((PROBED, hanging)) == 1
        (row,) = await rows(seen)
        assert (row["crashes"], row["attempts"], "probe" in row) == (5, 0, False)
        for process in workers.running:
            process.kill()


async def is_left(seen: Rig, count: int) -> bool:
    return await seen.backlog() == count


async def rows(seen: Rig) -> list[dict[str, Any]]:
    """All attempts rows."""
    found: list[dict[str, Any]] = []
    for number in range(seen.partitions):
        key = seen.keys.attempts(Partition(number))
        found += [msgpack.unpackb(row) for row in await seen.link.call("HVALS", key)]
    return found
