"""What operators do, on a cluster: every command, and the rights that are enough."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Project
from tests.clusters import Clustered
from tests.e2e.rig import QUICK, Notes, Rig, rig, until, working
from tests.servers import available_servers
from tests.servers_plugin import default_server
from wherry import Client, Config, SyncClient, Worker
from wherry.cli.exits import ExitCode
from wherry.doctor.rights import ROLES, acl_of

SCOPES = [f"s{n}" for n in range(10)]


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    binary = available_servers()[default_server()]
    with Clustered(binary, tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Clustered) -> Clustered:
    """An emptied one."""
    for node in shared_cluster.primaries():
        assert node.command("FLUSHALL").startswith(b"+OK")
    return shared_cluster


async def fussy(scope: Any, receive: Any, send: Any) -> None:
    """Echo numbers, and fail for negative ones."""
    while True:
        message = await receive()
        assert message["number"] >= 0
        await send({"type": "echo", "number": message["number"]})


class Desk:
    """A cluster with a worker, and the command line beside it."""

    def __init__(self, project: Project, worker: Worker, client: Client, seen: Rig) -> None:
        self.project = project
        self.worker = worker
        self.client = client
        self.seen = seen

    async def say(self, *arguments: str, exit_code: int = 0) -> str:
        """What a command prints."""
        done = await asyncio.to_thread(self.project.run, *arguments, "--namespace", "test")
        assert done.returncode == exit_code, done.stderr + done.stdout
        return done.stdout

    async def data(self, *arguments: str) -> Any:
        return json.loads(await self.say(*arguments, "--json"))


@asynccontextmanager
async def desk(cluster: Clustered, tmp_path: Path, **settings: Any) -> AsyncGenerator[Desk]:
    async with (
        rig(cluster.url) as seen,
        working(fussy, cluster.url, max_attempts=1, **settings) as worker,
        Client(cluster.url, config=Config(**QUICK)) as client,
    ):
        await until(lambda: len(worker._holdings) == seen.partitions)
        yield Desk(Project(tmp_path, cluster.url), worker, client, seen)


@pytest.mark.limit_s(150)
async def test_every_command_works(cluster: Clustered, tmp_path: Path):
    async with desk(cluster, tmp_path) as at:
        await at.client.send_many((scope, {"type": "n", "number": 1}) for scope in SCOPES)
        for scope in SCOPES:
            await at.client.send(scope, {"type": "n", "number": -1})
        await at.seen.drained()
        status = await at.data("status")
        assert len(status["nodes"]) == 3
        assert sum(len(one["partitions"]) for one in status["nodes"]) == at.seen.partitions
        assert all(one["replicas"] == 1 and not one["is_away"] for one in status["nodes"])
        assert {one["node"] for one in status["partitions"]} == {
            one["node"] for one in status["nodes"]
        }
        assert (status["dead"], status["free"], status["backlog"]) == (len(SCOPES), 0, 0)
        assert "NODE" in await at.say("status")
        assert "0" in await at.say("partitions")
        assert at.worker.worker_id in await at.say("workers", "ls")
        assert "echo" in await at.say("replies", "s1")
        sent = await at.say("send", "s1", '{"type": "n", "number": 3}')
        assert sent.strip().endswith("-0")
        assert '"number": 4' in await at.say("request", "s1", '{"type": "n", "number": 4}')
        assert "s1" in await at.say("scopes", "ls")
        assert "s1" in await at.say("scopes", "show", "s1")
        assert len((await at.data("dlq", "ls"))["letters"]) == len(SCOPES)
        await at.say("dlq", "replay", "--all")
        await at.seen.drained()
        assert len(await at.seen.dead()) == len(SCOPES), "they have failed again"
        await at.say("dlq", "drop", "--all", "--yes")
        assert not await at.seen.dead()
        await at.say("pause")
        assert "PAUSED" in await at.say("status")
        await at.say("resume")
        assert "wherry top" in await at.say("top", "--once")
        assert "3 primaries, 3 replicas" in await at.say("doctor")
        assert at.worker.worker_id in await at.say("health", "--any")
        with SyncClient(cluster.url, config=Config(**QUICK)) as client:
            [answer] = await asyncio.to_thread(client.request, "s2", {"type": "n", "number": 9})
            assert answer["number"] == 9
        await at.say("workers", "drain", at.worker.worker_id)
    assert set(await _owners(cluster)) == {""}
    await asyncio.to_thread(_purge, tmp_path, cluster)
    for node in cluster.primaries():
        assert node.command("DBSIZE") == b":0\r\n"


async def _owners(cluster: Clustered) -> list[str]:
    async with rig(cluster.url) as seen:
        return await seen.owners()


def _purge(tmp_path: Path, cluster: Clustered) -> None:
    project = Project(tmp_path, cluster.url)
    assert "keys deleted" in project.run("purge", "--yes", "--namespace", "test").stdout


@pytest.mark.limit_s(90)
async def test_status_and_doctor_tell_of_a_node_that_is_away(tmp_path: Path):
    binary = available_servers()[default_server()]
    with Clustered(binary, tmp_path / "nodes", replicas=0, timeout_ms=60_000) as cluster:
        async with desk(cluster, tmp_path) as at:
            meta = cluster.owner(at.seen.keys.meta)
            gone = next(one for one in cluster.primaries() if one is not meta)
            gone.kill()
            try:
                status = await at.data("status")
                assert [one["node"] for one in status["nodes"] if one["is_away"]] == [
                    f"127.0.0.1:{gone.port}"
                ]
                assert "AWAY" in await at.say("status")
                told = await at.say("doctor", exit_code=ExitCode.UNFIT)
                assert f"start 127.0.0.1:{gone.port} again" in " ".join(told.split())
            finally:
                gone.start()
            await until(lambda: len(at.worker._holdings) == at.seen.partitions, 20)


@pytest.mark.limit_s(90)
async def test_rights_that_the_documentation_names_are_enough(cluster: Clustered):
    for name, role in ROLES.items():
        rules = acl_of(role, "test", in_a_cluster=True).split()
        for node in cluster.nodes:
            answer = node.command(
                "ACL", "SETUSER", name, "on", ">pw", "resetkeys", "resetchannels", "-@all", *rules
            )
            assert answer.startswith(b"+OK"), answer
    hooks = Notes()
    async with (
        rig(cluster.url_of("operator", "pw")) as seen,
        working(fussy, cluster.url_of("worker", "pw"), hooks=hooks),
        Client(cluster.url_of("producer", "pw"), config=Config(**QUICK)) as producer,
        Client(cluster.url_of("reader", "pw"), config=Config(**QUICK)) as reader,
    ):
        for scope in SCOPES:
            [answer] = await producer.request(scope, {"type": "n", "number": 5})
            assert answer["number"] == 5
            found = [one async for one in reader.replies(scope)]
            assert len(found) == 1
        await seen.drained()
        slots = sorted(set(map(seen.partition, SCOPES)))
        assert slots
    assert not hooks.warned
