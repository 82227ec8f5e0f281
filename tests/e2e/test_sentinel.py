"""Redis Sentinel: the primary is asked for, followed, and never mistaken; with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import QUICK, Notes, Rig, rig, until, working
from tests.e2e.test_durable import DURABLE, totals
from tests.sentinels import SERVICE, Sentinel, Watched, url_of
from tests.servers import Server, available_servers
from tests.servers_plugin import StartServer, default_server
from wherry import Client, Config
from wherry.broker.connect import open_store
from wherry.errors import NotReplicated, StoreRefused, StoreUnavailable
from wherry.model import id_key

SCOPES = [f"s{n}" for n in range(12)]
KEPT: dict[str, Any] = {"reply_length": 100_000}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with Watched(available_servers()[default_server()], tmp_path / "watched") as found:
        yield found


@pytest.fixture
def start_sentinel(tmp_path: Path) -> Iterator[Any]:
    started: list[Sentinel] = []

    def start(primary: Server, **more: Any) -> Sentinel:
        directory = tmp_path / f"sentinel-{len(started)}"
        one = Sentinel(primary.binary, directory, primary, quorum=1, **more)
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


class Producer:
    """Sends numbers without a pause, each until it is accepted; it knows the ids by number."""

    def __init__(self, client: Client, *, replicas: int) -> None:
        self.client = client
        self.replicas = replicas
        self.accepted: dict[str, list[tuple[str, int]]] = {scope: [] for scope in SCOPES}
        self.count = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for scope in SCOPES:
                tasks.create_task(self._run(scope))

    async def _run(self, scope: str) -> None:
        while True:
            self.count += 1
            number = self.count
            self.accepted[scope].append((await self._send(scope, number), number))

    async def _send(self, scope: str, number: int) -> str:
        message = {"type": "n", "number": number}
        while True:
            try:
                return await self.client.send(
                    scope, message, message_id=f"{scope}:{number}", replicas=self.replicas
                )
            except (StoreUnavailable, NotReplicated):
                await asyncio.sleep(0.02)

    def total(self) -> int:
        return sum(map(len, self.accepted.values()))


async def check(seen: Rig, producer: Producer) -> int:
    """Each answer once and in order, and the states equal them; returns how many are lost."""
    lost = 0
    for scope in SCOPES:
        replies = await seen.replies(scope)
        causes = [one.cause for one in replies]
        assert causes == sorted(set(causes), key=id_key), "once, and in order"
        sums = [one.message["number"] for one in replies if one.message]
        numbers = [now - then for then, now in pairwise([0, *sums])]
        assert numbers == sorted(set(numbers)), "once, and in order"
        state = await seen.state(scope)
        assert (state or {"total": 0}) == {"total": sum(numbers)}
        lost += len({number for _, number in producer.accepted[scope]} - set(numbers))
    assert await seen.dead() == []
    return lost


@asynccontextmanager
async def produced(url: str, *, replicas: int) -> AsyncGenerator[Producer]:
    async with Client(url, config=Config(**QUICK, **KEPT)) as client, asyncio.TaskGroup() as tasks:
        producer = Producer(client, replicas=replicas)
        producing = tasks.create_task(producer.run())
        try:
            yield producer
        finally:
            producing.cancel()


@pytest.mark.limit_s(120)
@pytest.mark.parametrize("replicas", [0, 1])
async def test_failover_under_load(watched: Watched, replicas: int):
    """The primary is killed; what survives is exact, and confirmed messages all survive."""
    hooks = Notes()
    async with (
        rig(watched.url) as seen,
        working(totals, watched.url, hooks=hooks, **KEPT, **DURABLE),
        working(totals, watched.url, **KEPT, **DURABLE),
        produced(watched.url, replicas=replicas) as producer,
    ):
        await until(lambda: producer.total() > 300)
        await asyncio.to_thread(watched.fail_over)
        if replicas:  # it is confirmed again when the old primary follows
            await asyncio.to_thread(watched.wait_replica)
        total = producer.total()
        await until(lambda: producer.total() > total + 300, 30)
        await until(lambda: hooks.count("partition lost"))
        warned = [one for one, _ in hooks.warned if "reading waits" in one]
        assert len(warned) <= 1 + hooks.count("reading goes on"), "each outage is said once"
        producer_is_done = producer
    async with rig(watched.url) as seen, working(totals, watched.url, **KEPT, **DURABLE):
        await seen.drained()
        lost = await check(seen, producer_is_done)
        assert lost == 0 or not replicas


@pytest.mark.limit_s(120)
async def test_old_primary_that_comes_back_as_a_replica_is_left_alone(watched: Watched):
    """Told to be a replica while it lives: connections to it are closed, and no error ends work."""
    hooks = Notes()
    async with (
        rig(watched.url) as seen,
        working(totals, watched.url, hooks=hooks, **KEPT, **DURABLE) as worker,
        produced(watched.url, replicas=0) as producer,
    ):
        before, after = watched.primary, watched.replica
        for former, heir in ((before, after), (after, before)):
            await until(lambda: producer.total() > 300)
            said = watched.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)
            assert said.startswith(b"+OK")
            await asyncio.to_thread(watched.wait_named, heir)
            await until(lambda one=former: _is_replica(one), 30)
            await asyncio.to_thread(watched.wait_replica)
            producer.accepted = {scope: [] for scope in SCOPES}
        names = await until(lambda: _names(seen))
        assert worker.worker_id in names
        other = await asyncio.to_thread(after.command, "CLIENT", "LIST", "TYPE", "normal")
        assert b"name=wherry" not in other, "nobody stays with the replica"


def _is_replica(server: Server) -> bool:
    """Whether a server says so; it breaks its connections when it becomes one."""
    try:
        return b"slave" in server.command("ROLE")
    except ConnectionError:
        return False


async def _names(seen: Rig) -> set[str] | None:
    """Owners of all partitions, if all are owned."""
    try:
        owners = set(await seen.owners())
    except StoreUnavailable:
        return None
    return None if "" in owners else owners


async def test_replica_that_a_sentinel_takes_for_the_primary_is_not_believed(
    watched: Watched, start_sentinel: Any
):
    """It knows less than the others; the next one is asked, on both kinds of link."""
    wrong = start_sentinel(watched.replica)
    store = open_store(url_of([wrong, *watched.sentinels]))
    link, blocking = store.link(), store.sync_link()
    try:
        assert await link.call("SET", "k", "v") == b"OK"
        assert blocking.call("SET", "k", "w") == b"OK"
        alone = open_store(url_of([wrong])).link()
        with pytest.raises(StoreUnavailable, match="what it names is a replica"):
            await alone.call("GET", "k")
        await alone.aclose()
    finally:
        blocking.close()
        await link.aclose()


async def test_sentinels_that_are_down_are_passed_over(
    start_server: StartServer, start_sentinel: Any
):
    server = start_server()
    dead, alive = start_sentinel(server), start_sentinel(server)
    dead.kill()
    store = open_store(url_of([dead, alive]))
    link, blocking = store.link(), store.sync_link()
    try:
        assert await link.call("PING") == b"PONG"
        assert blocking.call("PING") == b"PONG"
        blocking.close()
        alive.kill()
        asks = asyncio.to_thread(blocking.call, "PING")
        with pytest.raises(StoreUnavailable, match=rf"{alive.port}: .*; .*{dead.port}: "):
            await asks
        await link.reconnect()
        with pytest.raises(StoreUnavailable, match="no sentinel knows a primary of 'main'"):
            await link.call("PING")
    finally:
        await link.aclose()


async def test_worker_waits_for_sentinels_that_are_all_down(
    start_server: StartServer, start_sentinel: Any
):
    server = start_server()
    sentinel = start_sentinel(server)
    hooks = Notes()
    url = url_of([sentinel])
    async with rig(server.url) as seen, working(totals, url, hooks=hooks, **DURABLE):
        await asyncio.to_thread(sentinel.stop)
        await seen.link.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: hooks.count("waits for Redis") > 6)
        await asyncio.to_thread(sentinel.start)
        await until(lambda: hooks.count("goes on"))
        await seen.send("s0", 1)
        await seen.answered("s0", 1)
        warned = [event for event, _ in hooks.warned if "waits for Redis" in event]
        assert len(warned) == len(set(warned)), "each kind of traffic says it once"


async def test_service_that_no_sentinel_knows_is_named(
    start_server: StartServer, start_sentinel: Any
):
    sentinel = start_sentinel(start_server())
    link = open_store(url_of([sentinel]).replace("/main", "/mian")).link()
    with pytest.raises(StoreUnavailable, match="it knows no service 'mian'"):
        await link.call("PING")
    await link.aclose()


async def test_sentinels_have_a_login_of_their_own(start_server: StartServer, start_sentinel: Any):
    server = start_server(password="data")
    lines = (f"sentinel auth-pass {SERVICE} data",)
    sentinel = start_sentinel(server, password="watch", lines=lines)
    url = url_of([sentinel]).replace("://", "://:data@")
    for options, told in (
        ("?sentinel_password=watch", ""),
        ("?sentinel_password=wrong", "sentinel_username and sentinel_password"),
        ("", "sentinel_username and sentinel_password"),
    ):
        store = open_store(url + options)
        link, blocking = store.link(), store.sync_link()
        try:
            if told:
                with pytest.raises(StoreRefused, match=told) as raised:
                    await link.call("PING")
                assert "data" not in str(raised.value)
                assert "wrong" not in str(raised.value)
                with pytest.raises(StoreRefused, match=told):
                    blocking.call("PING")
            else:
                assert await link.call("PING") == b"PONG"
                assert blocking.call("PING") == b"PONG"
        finally:
            blocking.close()
            await link.aclose()


async def test_server_that_became_a_replica_is_left_by_each_kind_of_call(any_server: Server):
    """Behind a name that leads to another server meanwhile, say; 6.2 says it in a sentence."""
    store = open_store(any_server.url)
    link, blocking = store.link(), store.sync_link()
    write = ("EVAL", "return redis.call('SET', KEYS[1], 'v')", 1, "k")
    try:
        assert await link.call(*write) == b"OK"
        assert blocking.call(*write) == b"OK"
        assert any_server.command("REPLICAOF", "127.0.0.1", "1").startswith(b"+OK")
        with pytest.raises(StoreUnavailable, match="read only replica"):
            await link.call(*write)
        assert await link.call("PING") == b"PONG"
        assert link.connects == 2, "on another connection"
        _, answer = await link.calls([("PING",), write])
        assert isinstance(answer, StoreUnavailable)
        assert await link.call("PING") == b"PONG"
        assert link.connects == 3
        with pytest.raises(StoreUnavailable, match="read only replica"):
            blocking.call(*write)
    finally:
        any_server.command("REPLICAOF", "NO", "ONE")
        blocking.close()
        await link.aclose()
