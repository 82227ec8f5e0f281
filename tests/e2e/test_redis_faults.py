"""Redis refuses, stands still, or is reached by halves; each on a real server, some by a proxy.

Work resumes by itself, and every reply and every state is as if nothing had been. What cannot be
mended ends the worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import PARTITIONS, QUICK, Notes, Rig, rig, until, working
from tests.e2e.test_durable import DURABLE, running_totals, totals
from tests.proxy import Proxy, everybody, is_committing, is_reading, proxy
from tests.servers import Server
from wherry import Client, Config, Worker
from wherry.broker.connect import open_store
from wherry.broker.embedded import open_embedded
from wherry.errors import StoreIncompatible, StoreRefused, StoreUnavailable
from wherry.model import Partition
from wherry.runtime import outage, recheck

SCOPES = 20
LEASE_S: float = QUICK["lease_s"]


class Load:
    """Messages that are sent in parts, and what must come of them."""

    def __init__(self, seen: Rig) -> None:
        self.seen = seen
        self.sent = 0

    async def add(self, count: int = 300) -> None:
        numbers = range(self.sent, self.sent + count)
        await self.seen.send_many([(f"s{n % SCOPES}", n) for n in numbers])
        self.sent += count

    async def check(self) -> None:
        """Wait for the end: each message answered once and in order, and the totals right."""
        await self.seen.drained(40)
        for scope in range(SCOPES):
            numbers = list(range(scope, self.sent, SCOPES))
            assert await self.seen.numbers(f"s{scope}") == running_totals(numbers)
            assert await self.seen.state(f"s{scope}") == {"total": sum(numbers)}
        assert await self.seen.dead() == []


@asynccontextmanager
async def loaded(url: str) -> AsyncGenerator[Load]:
    async with rig(url) as seen:
        load = Load(seen)
        await load.add()
        yield load


class Handlers:
    """Those of `totals`, which may be held up.

    Attributes:
        may_go_on: they wait for it, each with its message.
        begun: how many messages they were given.
    """

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.begun = 0

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        async def receive_and_wait() -> Any:
            message = await receive()
            self.begun += 1
            await self.may_go_on.wait()
            return message

        await totals(scope, receive_and_wait, send)


@asynccontextmanager
async def far(
    server: Server, application: Any = totals
) -> AsyncGenerator[tuple[Proxy, Load, Worker, Notes]]:
    """A worker behind a proxy, at work."""
    hooks = Notes()
    async with (
        proxy(server.port) as way,
        loaded(server.url) as load,
        working(application, way.url, hooks=hooks, **DURABLE) as worker,
    ):
        await load.seen.drained()
        yield way, load, worker, hooks


async def _lapsed(seen: Rig) -> bool:
    """Whether every lease has run out."""
    commands = [("HGET", seen.keys.lease(Partition(p)), "expiry") for p in range(PARTITIONS)]
    seconds, _ = await seen.link.call("TIME")
    return all(int(one) < 1000 * int(seconds) for one in await seen.link.calls(commands))


async def test_network_that_is_down_for_longer_than_a_lease_delays_only(redis_server: Server):
    async with far(redis_server) as (way, load, _, _):
        for _ in range(2):
            await load.add()
            way.hold()
            await load.add()
            await until(lambda: _lapsed(load.seen))
            way.heal()
            await load.check()


async def test_what_comes_late_out_of_a_network_that_was_down_has_no_effect(redis_server: Server):
    """Commits of the former tenure among it: meanwhile another worker has done the work."""
    async with far(redis_server) as (way, load, _, hooks):
        await load.add()
        way.hold()
        async with working(totals, redis_server.url, **DURABLE) as other:
            await load.add()
            await until(lambda: _owner_is(load.seen, {other.worker_id}))
            await load.check()
            way.heal()
            await until(lambda: hooks.count("partition lost") == PARTITIONS)
            await load.add()
            await load.check()


async def test_connections_that_swallow_everything_are_given_up(redis_server: Server):
    handlers = Handlers()
    async with far(redis_server, handlers.application) as (way, load, _, hooks):
        handlers.may_go_on.clear()
        begun = handlers.begun
        await load.add()
        await until(lambda: handlers.begun > begun)
        way.swallows_requests = way.swallows_answers = everybody
        handlers.may_go_on.set()
        await load.add()
        await until(lambda: hooks.count("committing waits for Redis"))
        await until(lambda: _lapsed(load.seen))
        way.heal()
        await load.check()


async def test_connections_that_are_cut_all_the_time_delay_only(redis_server: Server):
    async with far(redis_server) as (way, load, _, _):
        for _ in range(20):
            await load.add(50)
            way.cut()
        await load.check()


async def _owner(seen: Rig) -> set[str]:
    return set(await seen.owners())


async def test_worker_that_is_deaf_hands_its_partitions_on(redis_server: Server):
    """Its writes pass and it is alive, but what it reads is never answered."""
    async with far(redis_server) as (way, load, deaf, _):
        seen = load.seen
        assert await _owner(seen) == {deaf.worker_id}
        way.swallows_answers = is_reading
        async with working(totals, redis_server.url, **DURABLE) as other:
            await load.add()
            await load.check()
            assert await _owner(seen) == {other.worker_id}
            member = await seen.link.call("HGET", seen.keys.member(deaf.worker_id), "can_claim")
            assert member == b"0", "it says so"
            way.heal()
            await until(lambda: _shared(seen))
            await load.add()
            await load.check()


async def _shared(seen: Rig) -> bool:
    return sorted(Counter(await seen.owners()).values()) == [PARTITIONS // 2] * 2


async def test_commits_whose_answers_are_swallowed_are_sent_again_and_count_once(
    redis_server: Server,
):
    async with far(redis_server) as (way, load, _, hooks):
        way.swallows_answers = is_committing
        await load.add()
        await until(lambda: hooks.count("committing waits for Redis") > 1)
        way.heal()
        await load.check()


async def test_full_memory_refuses_producers_and_not_workers(start_server: Any):
    """The worker commits what waits, which makes room, and keeps its leases meanwhile."""
    server = start_server()
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def gated() -> Any:
            message = await receive()
            await gate.wait()
            return message

        await totals(scope, gated, send)

    hooks = Notes()
    async with (
        loaded(server.url) as load,
        working(app, server.url, hooks=hooks, **DURABLE) as worker,
        Client(server.url, config=Config(**QUICK)) as client,
    ):
        seen = load.seen
        await seen.link.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            async with asyncio.timeout(5):
                await client.send("s0", {"type": "n", "number": 1})
        beaten = await seen.link.call("HGET", seen.keys.lease(seen.partition("s0")), "expiry")
        await until(lambda: _expiry_passes(seen, int(beaten)))
        gate.set()
        await load.check()
        assert hooks.count("partition lost") == 0
        assert await _owner(seen) == {worker.worker_id}
        worker.request_stop()
        await until(lambda: _owner_is(seen, {""}))
        await seen.link.call("CONFIG", "SET", "maxmemory", "0")
        await client.send("s0", {"type": "n", "number": 1})


async def _expiry_passes(seen: Rig, unix_ms: int) -> bool:
    expiry = await seen.link.call("HGET", seen.keys.lease(seen.partition("s0")), "expiry")
    return int(expiry) > unix_ms + 2000 * LEASE_S


async def _owner_is(seen: Rig, owners: set[str]) -> bool:
    return await _owner(seen) == owners


async def test_read_only_server_is_waited_for(start_server: Any):
    server = start_server(args=("--replica-read-only", "yes"))
    hooks = Notes()
    async with (
        loaded(server.url) as load,
        working(totals, server.url, hooks=hooks, **DURABLE),
    ):
        await load.check()
        await load.add()
        await load.seen.link.call("REPLICAOF", "127.0.0.1", "1")
        await until(lambda: hooks.count("beating waits for Redis") > 2)
        await asyncio.sleep(LEASE_S)  # leases cannot be renewed
        await load.seen.link.call("REPLICAOF", "NO", "ONE")
        await load.add()
        await load.check()
        said = [str(data["reason"]) for event, data in hooks.said if "waits for Redis" in event]
        assert any("read only replica" in one for one in said)


async def test_server_that_loads_its_data_is_waited_for(start_server: Any):
    # It answers once in a thousand keys while it loads.
    args = ("--appendfsync", "always", "--key-load-delay", "100")
    server = start_server(append_only=True, args=args)
    hooks = Notes()
    async with loaded(server.url) as load, working(totals, server.url, hooks=hooks, **DURABLE):
        await load.check()
        await load.seen.link.calls([("SET", f"filler:{n}", "x") for n in range(20_000)])
        await load.add()
        await asyncio.to_thread(server.restart)
        await load.add()
        await load.check()
        said = [str(data["reason"]) for event, data in hooks.said if "waits for Redis" in event]
        assert any("loading" in one for one in said), said


async def test_server_that_is_busy_with_a_script_is_waited_for(start_server: Any):
    server = start_server(args=("--lua-time-limit", "20"))
    hooks = Notes()
    async with loaded(server.url) as load, working(totals, server.url, hooks=hooks, **DURABLE):
        await load.check()
        await load.add()
        endless = asyncio.to_thread(server.command, "EVAL", "while true do end", "0")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(endless)
            await until(lambda: hooks.count("waits for Redis") > 5)
            await asyncio.sleep(LEASE_S)
            await asyncio.to_thread(server.command, "SCRIPT", "KILL")
            assert (await running).startswith(b"-")
        await load.add()
        await load.check()
        said = [str(data["reason"]) for event, data in hooks.said if "waits for Redis" in event]
        assert any("BUSY" in one for one in said), said


@pytest.mark.parametrize(
    "refusal",
    ["TRYAGAIN Multiple keys request during rehashing of slot", "CLUSTERDOWN The cluster is down"],
)
async def test_server_that_refuses_everything_for_a_while_is_waited_for(
    redis_server: Server, refusal: str
):
    async with far(redis_server) as (way, load, worker, hooks):
        await load.add()
        way.refusal = refusal.encode()
        await load.add()
        await until(lambda: way.refused > 20)
        await until(lambda: _lapsed(load.seen))
        way.refusal = b""
        await load.check()
        assert await _owner(load.seen) == {worker.worker_id}
        said = [str(data["reason"]) for event, data in hooks.said if "waits for Redis" in event]
        assert said
        assert all("cannot" in one for one in said), said


async def test_server_that_lacks_its_replicas_is_waited_for(start_server: Any):
    server = start_server()
    hooks = Notes()
    async with loaded(server.url) as load, working(totals, server.url, hooks=hooks, **DURABLE):
        await load.check()
        await load.add()
        await load.seen.link.call("CONFIG", "SET", "min-replicas-to-write", "1")
        await until(lambda: hooks.count("waits for Redis"))
        await load.seen.link.call("CONFIG", "SET", "min-replicas-to-write", "0")
        await load.add()
        await load.check()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outage, "PATIENCE_S", 0.5)


async def _ends(server: Server, *commands: tuple[str, ...]) -> tuple[StoreRefused, Notes]:
    """What a worker at work ends with when these commands were carried out."""
    hooks = Notes()
    async with rig(server.url) as seen:
        worker = Worker(totals, server.url, Config(**QUICK | DURABLE), hooks=hooks)
        running = asyncio.create_task(worker.arun())
        await worker.ready()
        await seen.send_many([(f"s{n % SCOPES}", n) for n in range(100)])
        await seen.drained()
        for command in commands:
            await seen.link.call(*command)
        async with asyncio.timeout(20):
            with pytest.raises(StoreRefused) as ended:
                await running
        return ended.value, hooks


@pytest.mark.usefixtures("impatient")
async def test_password_that_was_changed_ends_the_worker(start_server: Any):
    server = start_server(password="old")
    cut = ("CLIENT", "KILL", "SKIPME", "yes")
    error, hooks = await _ends(server, ("CONFIG", "SET", "requirepass", "new"), cut)
    assert "check user and password of the URL" in str(error)
    assert "old" not in str(error)
    assert hooks.count("worker stopped") == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("right", ["evalsha", "xread", "zadd"])
async def test_right_that_was_taken_away_ends_the_worker(start_server: Any, right: str):
    error, _ = await _ends(start_server(), ("ACL", "SETUSER", "default", f"-{right}"))
    assert "grant it with ACL SETUSER" in str(error)


async def test_right_that_is_given_back_soon_is_waited_for(start_server: Any):
    server = start_server()
    hooks = Notes()
    async with loaded(server.url) as load, working(totals, server.url, hooks=hooks, **DURABLE):
        await load.check()
        await load.seen.link.call("ACL", "SETUSER", "default", "-evalsha")
        await load.add()
        await until(lambda: hooks.count("committing waits for Redis"))
        await load.seen.link.call("ACL", "SETUSER", "default", "+evalsha")
        await load.check()


async def test_server_that_may_evict_is_refused_at_the_start(start_server: Any):
    server = start_server(args=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
    worker = Worker(totals, server.url, Config(**QUICK), hooks=Notes())
    with pytest.raises(StoreIncompatible, match="CONFIG SET maxmemory-policy noeviction"):
        await worker.arun()


async def test_stream_that_was_overwritten_stops_its_own_partition_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    """One read serves all partitions; it is said once which one spoils it, and looked at again."""
    monkeypatch.setattr(recheck, "RECHECK_S", 0.5)
    hooks = Notes()
    async with rig(redis_url) as seen:
        bad = seen.partition("s0")
        scopes = [one for one in map("s{}".format, range(40)) if seen.partition(one) != bad]
        await seen.link.call("SET", seen.keys.entries(bad), "something else")
        async with working(totals, redis_url, hooks=hooks, **DURABLE) as worker:
            for number in range(5):
                await seen.send_many([(one, number) for one in scopes])
                for one in scopes:
                    await seen.answered(one, number + 1)
            assert await _owner(seen) == {worker.worker_id}, "nobody else need try"
            [told] = [data for event, data in hooks.said if "is not read" in event]
            assert told["partition"] == bad
            assert told["key"] == seen.keys.entries(bad)
            await seen.link.call("RENAME", seen.keys.entries(bad), "elsewhere")
            await seen.send("s0", 1)
            await seen.answered("s0", 1)
            await seen.link.call("DEL", seen.keys.entries(bad))
            await seen.link.call("SET", seen.keys.entries(bad), "again")
            for one in scopes:
                await seen.send(one, 5)
                await seen.answered(one, 6)
            await until(lambda: hooks.count("is not read") >= 2)


async def _are(seen: Rig, commands: list[tuple[str, ...]], answers: set[bytes]) -> bool:
    return set(await seen.link.calls(commands)) == answers


async def test_lease_that_was_overwritten_stops_its_own_partition_alone(redis_url: str):
    hooks = Notes()
    async with rig(redis_url) as seen:
        bad = seen.partition("s0")
        key = seen.keys.lease(bad)
        scopes = [one for one in map("s{}".format, range(40)) if seen.partition(one) != bad]
        async with working(totals, redis_url, hooks=hooks, **DURABLE) as worker:
            await seen.send("s0", 0)
            await seen.answered("s0", 1)
            await seen.link.call("SET", key, "something else")
            await seen.send("s0", 1)
            for number in range(5):
                await seen.send_many([(one, number) for one in scopes])
                for one in scopes:
                    await seen.answered(one, number + 1)
            await until(lambda: hooks.count("a lease was overwritten"))
            async with working(totals, redis_url, hooks=(others := Notes()), **DURABLE) as other:
                await until(lambda: others.count("a lease was overwritten"))
                good = [p for p in map(Partition, range(PARTITIONS)) if p != bad]
                leases = [("HGET", seen.keys.lease(p), "owner") for p in good]
                both = {worker.worker_id.encode(), other.worker_id.encode()}
                await until(lambda: _are(seen, leases, both))
                for one in scopes:
                    await seen.send(one, 5)
                    await seen.answered(one, 6)
            [told] = [data for event, data in hooks.said if "lease was overwritten" in event]
            assert told == {"partition": bad, "key": key}
            assert not hooks.count("waits for Redis")
            await seen.link.call("DEL", key)
            await seen.answered("s0", 2)
            assert await seen.numbers("s0") == [0, 1]
            await until(lambda: _owner_is(seen, {worker.worker_id}))


async def test_embedded_server_that_ended_with_its_supervisor_is_started_again(tmp_path: Path):
    with open_embedded(tmp_path / "store") as embedded:
        url = f"unix://{embedded.socket_path}"
        store = open_store(f"embedded://{tmp_path}/store")
        hooks = Notes()
        try:
            async with loaded(url) as load, working(totals, store, hooks=hooks, **DURABLE):
                await load.check()
                supervisor = int((tmp_path / "store" / "supervisor.lock").read_text())
                os.kill(supervisor, signal.SIGKILL)
                await until(lambda: hooks.count("reading waits for Redis"))
                await until(lambda: hooks.count("reading goes on"))
                await load.add()
                await load.check()
        finally:
            store.close()
