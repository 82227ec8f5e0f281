"""`wherry doctor` against servers and namespaces of all kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Project
from tests.cli.letters import KEYS, Planted
from tests.servers import Server, available_servers, wait_until
from tests.servers_plugin import StartServer
from wherry.model import Partition


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def examine(project: Project, url: str, *options: str, code: int = 0) -> dict[str, Any]:
    """The worst finding of each subject."""
    done = project.run("doctor", "--json", *options, WHERRY_URL=url)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    levels = ["ok", "note", "warning", "error"]
    assert (found["errors"] > 0) == (code == 8)
    worst: dict[str, Any] = {}
    for one in found["findings"]:
        assert one["remedy"] or one["level"] not in ("warning", "error")
        known = worst.setdefault(one["subject"], one)
        if levels.index(one["level"]) > levels.index(known["level"]):
            worst[one["subject"]] = one
    return worst


@pytest.mark.parametrize("name", list(available_servers()))
def test_plain_server_is_fit(project: Project, start_server: StartServer, name: str):
    server = start_server(name, append_only=True)
    found = examine(project, server.url)
    version = server.version.split()[1]
    assert version in found["server"]["text"]
    assert found["persistence"]["level"] == "ok"
    assert found["namespace"]["text"] == "nobody has used wherry yet: no partitions, no workers"
    levels = {name: one["level"] for name, one in found.items()}
    assert set(levels.values()) <= {"ok", "note"}
    # Redis 6.2 does not know scripts that may run at the memory limit.
    assert levels["scripts"] == ("note" if version.startswith("6.") else "ok")
    assert [levels[one] for one in ("worker", "producer", "reader", "operator")] == ["ok"] * 4


def test_server_that_evicts_is_an_error(project: Project, start_server: StartServer):
    server = start_server(args=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
    found = examine(project, server.url, code=8)["eviction"]
    assert found["level"] == "error"
    assert found["remedy"].startswith("CONFIG SET maxmemory-policy noeviction")
    # And that mends it.
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert examine(project, server.url)["eviction"]["level"] == "ok"


def test_server_without_persistence_is_warned_of(project: Project, start_server: StartServer):
    server = start_server()
    found = examine(project, server.url)["persistence"]
    assert found["level"] == "warning"
    assert "nothing is written to disk" in found["text"]
    server.command("CONFIG", "SET", "save", "3600 1")
    assert "snapshots alone (3600 1)" in examine(project, server.url)["persistence"]["text"]


def test_replica_is_an_error_and_its_primary_is_named(project: Project, start_server: StartServer):
    primary = start_server()
    replica = start_server(args=("--replicaof", "127.0.0.1 " + str(primary.port)))
    wait_until(lambda: b"master_link_status:up" in replica.command("INFO"), "in step")
    found = examine(project, replica.url, code=8)
    assert found["replicas"]["level"] == "error"
    assert f"127.0.0.1:{primary.port}" in found["replicas"]["remedy"]
    assert examine(project, primary.url)["replicas"]["text"] == "1, all of them up to date"


def test_user_without_a_right_is_told_which(project: Project, start_server: StartServer):
    server = start_server()
    server.command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-xadd", "-info")
    url = f"redis://weak:pw@127.0.0.1:{server.port}/0"
    found = examine(project, url)
    assert "refuses a command" in found["server"]["text"]
    assert found["worker"]["level"] == "note"
    assert found["reader"]["level"] == "ok"
    found = examine(project, url, "--role", "worker", code=8)
    assert found["worker"]["remedy"] == "ACL SETUSER weak +xadd"
    assert "cannot run applications: not allowed +xadd" in found["worker"]["text"]
    done = project.run("doctor", "--role", "boss", WHERRY_URL=url)
    assert (done.returncode, done.stdout) == (2, "")


def test_namespace_is_examined(project: Project, start_server: StartServer):
    server = start_server()
    with Planted(server.url) as planted:
        planted.bury("a")
        planted.hold("b", "5-0")
        found = examine(project, server.url)
        assert found["namespace"]["text"] == "wherry, protocol 1, 4 partitions"
        assert found["dead"]["level"] == "warning"
        assert found["failing"]["level"] == "note"
        assert found["workers"]["text"] == "no workers, and 1 messages wait"
        assert "paused" not in found
        assert project.run("pause", WHERRY_URL=server.url).returncode == 0
        assert examine(project, server.url)["paused"]["level"] == "warning"
        full = examine(project, server.url, "--set", "backlog=1", code=8)
        assert "producers are refused" in full["backlog"]["text"]
        found = examine(project, server.url, "--partitions", "8", code=8)
        assert "exit code 7" in found["partitions"]["text"]
        planted.link.set(KEYS.lease(Partition(1)), "x")
        planted.link.delete(KEYS.dead(Partition(2)))
        planted.link.set(KEYS.dead(Partition(2)), "x")
        found = examine(project, server.url, code=8)["keys"]
        assert KEYS.lease(Partition(1)) in found["text"]
        assert KEYS.dead(Partition(2)) in found["text"]
        planted.link.hset(KEYS.meta, "protocol_min", 9)
        planted.link.hset(KEYS.meta, "protocol_max", 9)
        assert "protocol 9 to 9" in examine(project, server.url, code=8)["protocol"]["text"]
        planted.link.hset(KEYS.meta, "partitions", "many")
        assert "damaged" in examine(project, server.url, code=8)["namespace"]["text"]


def test_workers_are_counted(project: Project, redis_server: Server):
    flags = ("--partitions", "4", "--set", "beat_s=0.1")
    with project.start_worker("echo:app", *flags, WHERRY_URL=redis_server.url):
        found = examine(project, redis_server.url)["workers"]
    assert (found["level"], found["text"]) == ("ok", "1, owning 4 of 4 partitions")


def test_text_fits_80_columns_and_shows_what_to_do(project: Project, redis_url: str):
    done = project.run("doctor", WHERRY_URL=redis_url)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "no errors, 1 warning"
    [place] = [number for number, line in enumerate(lines) if "nothing is written" in line]
    assert lines[place].startswith("warning  persistence")
    assert any("-> CONFIG SET appendonly yes" in line for line in lines[place : place + 4])
