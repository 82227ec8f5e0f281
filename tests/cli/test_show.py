"""What `wherry status` says of a namespace."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.servers import Server
from wherry.broker.connect import open_store
from wherry.broker.wire import Keys
from wherry.cli import workers
from wherry.cli.show import Status, as_data, as_table, partitions_table, read_status
from wherry.cli.tables import to_json
from wherry.model import MemberInfo, Partition, PartitionInfo

LONG = "a-host-with-a-very-long-name-in-a-cluster-7c9d8b6f5-x2x4q-1234-5f3a9c"


def partition(number: int, owner: str = "", backlog: int = 0, dead: int = 0) -> PartitionInfo:
    return PartitionInfo(
        partition=Partition(number),
        owner=owner,
        lease_ms=5000 + number if owner else 0,
        backlog=backlog,
        dead=dead,
        oldest_ms=200_000 if backlog else 0,
    )


STATUS = Status(
    namespace="shop",
    store="redis://h:6379/0",
    generation="abc",
    members=[
        MemberInfo(
            worker_id=LONG, fields={"state": "running", "in_flight": "7", "version": "0.1.0"}
        ),
        MemberInfo(worker_id="w2", fields={}),
    ],
    partitions=[
        *(partition(number, LONG) for number in range(30)),
        partition(30, LONG, backlog=12),
        partition(31, LONG, backlog=12),
        partition(32, "w2", dead=2),
        partition(33),
        partition(34),
    ],
)


async def look(url: str) -> Status:
    store = open_store(url)
    link = store.link()
    try:
        return await read_status(link, store, "shop")
    finally:
        await link.aclose()


def data(status: Status) -> Any:
    return json.loads(to_json(as_data(status)))


def test_table_fits_80_columns_and_joins_like_neighbours():
    lines = as_table(STATUS).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "namespace shop at redis://h:6379/0"
    assert lines[1] == "workers 2, partitions 35 (2 free), dead letters 2"
    assert lines[2] == "backlog 24 (oldest 3 min), in flight 7"
    cells = [line.split() for line in lines]
    worker = cells[5][0]
    assert worker.startswith("a-host")
    assert worker.endswith("5f3a9c")
    assert cells[5][1:] == ["running", "32", "7", "0.1.0"]
    assert cells[6] == ["w2", "?", "1", "0"]
    owner = cells[9][1]
    assert cells[9] == ["0-29", owner, "5.0", "s", "0", "-", "0"]
    assert cells[10] == ["30", owner, "5.0", "s", "12", "3", "min", "0"]
    assert cells[11] == ["31", owner, "5.0", "s", "12", "3", "min", "0"]
    assert cells[12] == ["32", "w2", "5.0", "s", "0", "-", "2"]
    assert cells[13] == ["33-34", "(free)", "-", "0", "-", "0"]


def test_workers_and_partitions_fit_80_columns():
    for text in (workers.as_table(STATUS), partitions_table(STATUS)):
        assert max(map(len, text.splitlines())) <= 80


def test_pause_is_said_loudly():
    lines = as_table(replace(STATUS, paused_ms=125_000)).splitlines()
    assert lines[1] == ("PAUSED for 2 min: workers begin nothing; wherry resume lets them go on")
    assert data(replace(STATUS, paused_ms=125_000))["paused_ms"] == 125_000
    assert data(STATUS)["paused_ms"] is None


def test_rate_is_of_the_last_beats_length():
    fields = {"last_ms": "500", "last_done": "20"}
    assert workers.rate_of(MemberInfo(worker_id="w", fields=fields)) == 40.0
    assert workers.rate_of(MemberInfo(worker_id="w", fields={})) == 0.0


def test_json_has_everything():
    found = data(STATUS)
    assert (found["backlog"], found["in_flight"], found["dead"], found["free"]) == (24, 7, 2, 2)
    assert found["oldest_ms"] == 200_000
    assert found["members"][0]["worker"] == LONG
    assert found["members"][0]["partitions"] == 32
    assert found["partitions"][32] == {
        "partition": 32,
        "owner": "w2",
        "lease_ms": 5032,
        "backlog": 0,
        "oldest_ms": 0,
        "dead": 2,
        "node": "",
        "is_away": False,
    }


async def test_status_of_an_unused_namespace_creates_nothing(redis_server: Server):
    status = await look(redis_server.url)
    assert "nobody has used it yet" in as_table(status)
    assert data(status)["partitions"] == []
    assert redis_server.command("DBSIZE") == b":0\r\n"


async def test_status_is_read_from_the_server(redis_server: Server):
    keys = Keys("shop")
    redis_server.command("HSET", keys.meta, "partitions", "3", "generation", "g")
    redis_server.command("XADD", keys.entries(Partition(1)), "*", "s", "a")
    redis_server.command("XADD", keys.dead(Partition(2)), "*", "s", "a")
    redis_server.command("ZADD", keys.joined, "1", "w1")
    redis_server.command("HSET", keys.member("w1"), "in_flight", "4")
    redis_server.command(
        "HSET", keys.lease(Partition(0)), "owner", "w1", "expiry", "99999999999999"
    )
    status = await look(redis_server.url)
    assert [(one.owner, one.backlog, one.dead) for one in status.partitions] == [
        ("w1", 0, 0),
        ("", 1, 0),
        ("", 0, 1),
    ]
    assert data(status)["members"] == [
        {
            "worker": "w1",
            "state": "?",
            "partitions": 1,
            "in_flight": 4,
            "fields": {"in_flight": "4"},
        }
    ]
