"""What `wherry status` says of a namespace."""

from __future__ import annotations

from tests.servers import Server
from wherry.broker.connect import open_store
from wherry.broker.wire import Keys
from wherry.cli.show import Status, as_data, as_table, read_status
from wherry.model import MemberInfo, Partition, PartitionInfo

LONG = "a-host-with-a-very-long-name-in-a-cluster-7c9d8b6f5-x2x4q-1234-5f3a9c"


def partition(number: int, owner: str = "", backlog: int = 0, dead: int = 0) -> PartitionInfo:
    return PartitionInfo(
        partition=Partition(number),
        owner=owner,
        lease_ms=5000 + number if owner else 0,
        backlog=backlog,
        dead=dead,
    )


STATUS = Status(
    namespace="shop",
    store="redis://h:6379/0",
    generation="abc",
    members=[
        MemberInfo(worker_id=LONG, fields={"in_flight": "7", "pid": "12", "version": "0.1.0"}),
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


def test_table_fits_80_columns_and_joins_like_neighbours():
    lines = as_table(STATUS).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "namespace shop at redis://h:6379/0"
    assert lines[1] == (
        "workers 2, partitions 35 (2 free), backlog 24, in flight 7, dead letters 2"
    )
    cells = [line.split() for line in lines]
    worker = cells[4][0]
    assert worker.startswith("a-host")
    assert worker.endswith("5f3a9c")
    assert cells[4][1:] == ["32", "7", "12", "0.1.0"]
    assert cells[5] == ["w2", "1", "0"]
    assert cells[8] == ["0-29", worker, "5.0", "s", "0", "0"]
    assert cells[9] == ["30", worker, "5.0", "s", "12", "0"]
    assert cells[10] == ["31", worker, "5.0", "s", "12", "0"]
    assert cells[11] == ["32", "w2", "5.0", "s", "0", "2"]
    assert cells[12] == ["33-34", "(free)", "-", "0", "0"]


def test_json_has_everything():
    found = as_data(STATUS)
    assert (found["backlog"], found["in_flight"], found["dead"], found["free"]) == (24, 7, 2, 2)
    assert found["members"][0]["worker"] == LONG
    assert found["members"][0]["partitions"] == 32
    assert found["partitions"][32] == {
        "partition": 32,
        "owner": "w2",
        "lease_ms": 5032,
        "backlog": 0,
        "dead": 2,
    }


async def test_status_of_an_unused_namespace_creates_nothing(redis_server: Server):
    status = await look(redis_server.url)
    assert "nobody has used it yet" in as_table(status)
    assert as_data(status)["partitions"] == []
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
    assert as_data(status)["members"] == [
        {"worker": "w1", "partitions": 1, "in_flight": 4, "fields": {"in_flight": "4"}}
    ]
