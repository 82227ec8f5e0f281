"""What a user may do is found out without doing it, and the rules of each part are enough."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.commands import LIMIT_S, Project
from tests.servers import Server, available_servers, wait_until
from tests.servers_plugin import StartServer
from wherry.broker.connect import open_store
from wherry.broker.wire import Keys
from wherry.config import Config
from wherry.doctor.examination import examine
from wherry.doctor.finding import Finding, Level
from wherry.doctor.rights import ROLES, acl_of, examine_rights

KEYS = Keys("wherry")


def add_user(server: Server, name: str, *rules: str) -> str:
    """Make a user who may do what the rules say and no more; returns the URL with his login."""
    base = ("reset", "on", ">pw", "resetchannels", "-@all")
    assert server.command("ACL", "SETUSER", name, *base, *rules).startswith(b"+OK"), rules
    return f"redis://{name}:pw@127.0.0.1:{server.port}/0"


def use_namespace(server: Server) -> None:
    fields = ("protocol_min", "1", "protocol_max", "1", "partitions", "4", "generation", "g")
    server.command("HSET", KEYS.meta, *fields)


async def found(url: str, *wanted: str) -> dict[str, list[Finding]]:
    """Findings about rights, by part."""
    findings = await examine_rights(open_store(url), KEYS, wanted, is_used=True)
    return {name: [one for one in findings if one.subject == name] for name in (*ROLES, "rights")}


@pytest.mark.parametrize("server_name", list(available_servers()))
@pytest.mark.parametrize("role", list(ROLES))
async def test_rules_of_a_part_are_what_it_needs(
    start_server: StartServer, server_name: str, role: str
):
    server = start_server(server_name)
    use_namespace(server)
    rules = acl_of(ROLES[role], "wherry").split()
    about = (await found(add_user(server, "u", *rules), role))[role]
    assert [one.level for one in about] == [Level.OK]
    for rule in rules:
        rest = [one for one in rules if one != rule]
        told = (await found(add_user(server, "u", *rest), role))[role]
        if rule[1:] in ROLES[role].helpful:
            assert [one.level for one in told] == [Level.OK, Level.NOTE]
        else:
            assert [one.level for one in told] == [Level.ERROR], rule
        assert told[-1].remedy == f"ACL SETUSER u {rule}"


@pytest.mark.parametrize("server_name", list(available_servers()))
async def test_nothing_is_written(start_server: StartServer, server_name: str):
    server = start_server(server_name)
    for is_used in (False, True):
        if is_used:
            use_namespace(server)
        before = server.command("DBSIZE"), server.command("HGETALL", KEYS.meta)
        findings = await examine(open_store(server.url), Config(), list(ROLES))
        assert not [one for one in findings if one.level is Level.ERROR]
        assert (server.command("DBSIZE"), server.command("HGETALL", KEYS.meta)) == before


async def test_part_that_is_not_asked_for_may_be_missing(start_server: StartServer):
    server = start_server()
    use_namespace(server)
    url = add_user(server, "u", *acl_of(ROLES["producer"], "wherry").split())
    about = await found(url)
    assert about["producer"][0].level is Level.OK
    assert about["worker"][0].level is Level.NOTE
    assert about["rights"] == []
    about = await found(add_user(server, "u", "~*", "+ping"))
    assert about["rights"][0].level is Level.ERROR


@pytest.mark.limit_s(120)
def test_parts_work_with_these_rules(start_server: StartServer, tmp_path: Path):
    """A worker, a producer, a reader and an operator, each with a user of its own."""
    server = start_server()
    urls = {
        name: add_user(server, name, *acl_of(role, "wherry").split())
        for name, role in ROLES.items()
    }
    project = Project(tmp_path)
    flags = ("--partitions", "4", "--durable-state", "--set", "beat_s=0.1", "--max-attempts", "1")
    with project.start_worker("echo:app", *flags, WHERRY_URL=urls["worker"]) as worker:
        hello = '{"type": "say", "text": "x"}'
        flags = ("--message-id", "m1")
        [reply] = project.lines("request", "a", hello, *flags, WHERRY_URL=urls["producer"])
        assert reply["part"] == "x"
        [line] = project.lines("replies", "a", WHERRY_URL=urls["reader"])
        assert line["message"] == reply
        broken = ("send", "b", '{"type": "say", "parts": 3}')
        assert project.run(*broken, WHERRY_URL=urls["producer"]).returncode == 0
        operator = {"WHERRY_URL": urls["operator"]}

        def has_letter() -> bool:
            return "1 dead letter," in project.run("dlq", "ls", **operator).stdout

        wait_until(has_letter, "a dead letter", LIMIT_S)
        assert project.run("dlq", "replay", "--all", **operator).stdout == "1 letter replayed\n"
        assert project.run("health", **operator).returncode == 0
        assert project.run("doctor", "--role", "operator", **operator).returncode == 0
        assert worker.stop(signal.SIGTERM) == 0
        assert "refuses" not in worker.stderr
    wait_until(has_letter, "the same again", LIMIT_S)
    assert project.run("purge", "--yes", **operator).returncode == 0
    assert server.command("DBSIZE") == b":0\r\n"
