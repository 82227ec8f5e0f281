"""`wherry purge`: all keys of one namespace, and no others."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Project
from tests.cli.letters import KEYS, Planted
from tests.servers import Server, wait_until
from wherry.model import Partition

LIKE_OURS = (
    "{wherryx}:meta",
    "{wherry:x}:in",
    "{xwherry:1}:in",
    "wherry",
    "{wherry}",
    "{wherry:1}",
)


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


@pytest.fixture
def planted(redis_url: str) -> Iterator[Planted]:
    """A namespace beside keys that look like its own."""
    with Planted(redis_url) as made:
        made.bury("a")
        made.hold("b", "5-0")
        with made.link.pipeline() as pipe:
            for number in range(1_500):
                pipe.set(KEYS.sent(made_partition(number), f"m{number}"), "1-0")
            for name in LIKE_OURS:
                pipe.set(name, "kept")
            pipe.execute()
        yield made


def made_partition(number: int) -> Partition:
    return Partition(number % 4)


def test_purge_deletes_the_namespace_and_nothing_else(project: Project, planted: Planted):
    looked = project.run("purge", "--dry-run", "--json")
    found = json.loads(looked.stdout)
    assert found["keys"] == {"attempts": 1, "dead": 1, "in": 1, "meta": 1, "sent": 1_500}
    assert (found["deleted"], found["unfinished"], found["dead"]) == (0, 1, 1)
    assert "1504 keys would be deleted" in project.run("purge", "--dry-run").stdout
    assert project.run("purge", "--yes").stdout == "1504 keys deleted\n"
    assert sorted(name.decode() for name in planted.link.scan_iter()) == sorted(LIKE_OURS)
    assert project.run("purge", "--yes").stdout == "there are no keys of that namespace\n"


def test_purge_asks_first(project: Project, planted: Planted):
    done = project.run("purge", stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "delete the 1504 keys of namespace wherry" in done.stderr
    assert "1 unfinished messages and 1 dead letters" in done.stderr
    assert planted.link.exists(KEYS.meta)


def test_purge_refuses_while_workers_live(project: Project, redis_server: Server):
    flags = ("--partitions", "4", "--set", "beat_s=0.1", "--lease", "0.5")
    with project.start_worker("echo:app", *flags) as worker:
        done = project.run("purge", "--yes")
        assert (done.returncode, done.stdout) == (1, "")
        assert "has 1 live workers" in done.stderr
        assert redis_server.command("EXISTS", KEYS.meta) == b":1\r\n"
        assert project.run("purge", "--dry-run").returncode == 0
        forced = project.run("purge", "--yes", "--force")
        assert forced.returncode == 0, forced.stderr
        # It notices, and works on in a namespace that it has made anew.
        worker.wait_for("Redis lost its data")
        answer = project.lines("request", "a", '{"type": "say", "text": "x"}')
        assert answer[0]["part"] == "x"
        assert worker.stop(signal.SIGTERM) == 0
    wait_until(lambda: project.run("purge", "--yes").returncode == 0, "all have left")
