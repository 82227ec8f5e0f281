"""What the doctor makes of a server's own description."""

from __future__ import annotations

import pytest

from wherry.doctor.finding import Level
from wherry.doctor.server import judge_server

WELL = {
    "redis_version": "8.0.1",
    "redis_mode": "standalone",
    "role": "master",
    "aof_enabled": "1",
    "config:appendfsync": "everysec",
    "config:save": "",
    "maxmemory_policy": "noeviction",
    "maxmemory": "1000000",
    "used_memory": "500000",
    "used_memory_peak": "600000",
    "connected_slaves": "1",
    "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=1",
    "connected_clients": "10",
    "maxclients": "10000",
}
MASTER_OF_TWO = {"connected_slaves": "2", "slave1": "ip=10.0.0.3,port=6380,state=online,lag=0"}


def test_server_without_fault_is_well():
    findings = judge_server(WELL)
    assert {one.level for one in findings} == {Level.OK}
    assert [one.subject for one in findings] == [
        *("server", "persistence", "eviction", "memory", "replicas", "clients"),
    ]
    assert not any(one.remedy for one in findings)


@pytest.mark.parametrize(
    ("change", "subject", "level", "text"),
    [
        ({"redis_mode": "sentinel"}, "server", Level.ERROR, "keeps no data"),
        ({"loading": "1"}, "server", Level.WARNING, "loading its data"),
        ({"aof_enabled": "0"}, "persistence", Level.WARNING, "nothing is written to disk"),
        (
            {"aof_enabled": "0", "config:save": "900 1"},
            "persistence", Level.WARNING, "snapshots alone (900 1)",
        ),
        ({"config:appendfsync": "no"}, "persistence", Level.WARNING, "a power loss costs"),
        ({"aof_last_write_status": "err"}, "persistence", Level.ERROR, "could not be written"),
        ({"rdb_last_bgsave_status": "err"}, "persistence", Level.ERROR, "MISCONF"),
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", Level.ERROR, "exit code 7"),
        (
            {"maxmemory_policy": "volatile-ttl", "maxmemory": "0"},
            "eviction", Level.WARNING, "without effect",
        ),
        ({"maxmemory": "0"}, "memory", Level.NOTE, "no limit"),
        ({"used_memory": "850000"}, "memory", Level.WARNING, "(85%)"),
        ({"used_memory": "960000"}, "memory", Level.ERROR, "producers are refused"),
        (
            {"role": "slave", "master_host": "h", "master_port": "7"},
            "replicas", Level.ERROR, "replica of h:7",
        ),
        ({"connected_slaves": "0"}, "replicas", Level.NOTE, "none"),
        (
            MASTER_OF_TWO | {"slave0": "ip=10.0.0.2,port=6379,state=online,lag=99"},
            "replicas", Level.WARNING, "1 of 2 are behind: 10.0.0.2:6379",
        ),
        (
            {"slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave,lag=0"},
            "replicas", Level.WARNING, "1 of 1 are behind",
        ),
        ({"connected_clients": "9000"}, "clients", Level.WARNING, "9000 connections"),
    ],
)  # fmt: skip
def test_fault_is_found(change: dict[str, str], subject: str, level: Level, text: str):
    found = [
        one
        for one in judge_server(WELL | change)
        if one.level in (level, Level.WARNING, Level.ERROR)
    ]
    assert [(one.subject, one.level) for one in found] == [(subject, level)]
    assert text in found[0].text
    assert found[0].remedy


def test_what_is_not_told_is_not_judged():
    """Managed services forbid CONFIG; a snapshot that failed blocks writes unless it is told."""
    assert {one.level for one in judge_server({})} <= {Level.OK, Level.NOTE, Level.WARNING}
    hidden = {name: value for name, value in WELL.items() if not name.startswith("config:")}
    assert {one.level for one in judge_server(hidden)} == {Level.OK}
    forgiving = WELL | {
        "rdb_last_bgsave_status": "err",
        "config:stop-writes-on-bgsave-error": "no",
    }
    assert {one.level for one in judge_server(forgiving)} == {Level.OK}


def test_valkey_is_called_by_its_name():
    about = {"server_name": "valkey", "valkey_version": "9.1.2", "redis_version": "7.2.4"}
    assert judge_server(WELL | about)[0].text == "Valkey 9.1.2, standalone"
