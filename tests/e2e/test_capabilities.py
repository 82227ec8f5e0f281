"""A Redis that refuses what can be refused: everything works, and it is said what is missed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from tests.e2e.rig import PARTITIONS, QUICK, Notes, Rig, rig, until, working
from tests.e2e.test_durable import DURABLE, running_totals, totals
from tests.servers import Server
from tests.servers_plugin import StartServer
from wherry import Client, Config
from wherry.broker.capabilities import MISSED
from wherry.broker.connect import open_store
from wherry.cli.show import Status, as_data, as_table, read_status

FORBIDDEN = {
    "INFO": ["-info"],
    "CLIENT ID": ["-client|id"],
    "CLIENT UNBLOCK": ["-client|unblock"],
    "PUBLISH": ["-publish"],
    "SUBSCRIBE": ["-subscribe"],
}
ALL = ["-info", "-client", "-publish", "-subscribe", "-wait", "-config", "-role", "-command"]


def forbid(server: Server, *rules: str) -> str:
    """The URL of a user who may do all but this."""
    said = server.command(
        "ACL", "SETUSER", "poor", "reset", "on", ">p", "~*", "&*", "+@all", *rules
    )
    assert said.startswith(b"+OK"), said
    return server.url.replace("://", "://poor:p@")


@pytest.fixture
def any_own_server(any_server: Server) -> Iterator[Server]:
    """Each kind of server, rid of the test's user at the end."""
    yield any_server
    any_server.command("ACL", "DELUSER", "poor")


async def test_least_set_of_commands_is_enough(any_own_server: Server):
    """Two workers that share, hand over and answer; senders and readers."""
    url = forbid(any_own_server, *ALL)
    hooks = Notes()
    async with rig(url) as seen, Client(url, config=Config(**QUICK)) as client:
        async with working(totals, url, hooks=hooks, **DURABLE) as first:
            numbers = list(range(20))
            for number in numbers:
                await client.send("s", {"type": "n", "number": number})
            await seen.answered("s", 20)
            async with working(totals, url, **DURABLE) as second:
                both = {first.worker_id, second.worker_id}
                await until(lambda: _owners_are(seen, both))
                assert await client.request("r", {"type": "n", "number": 5}) == [
                    {"type": "total", "number": 5}
                ]
            await until(lambda: _owners_are(seen, {first.worker_id}))
            await client.send("s", {"type": "n", "number": 20})
            await seen.answered("s", 21)
            assert await seen.numbers("s") == running_totals([*numbers, 20])
            status = await _status(any_own_server.url)
            lacks = cast("dict[str, str]", as_data(status)["lacks"])
            assert lacks.items() <= MISSED.items()
            assert set(FORBIDDEN) <= set(lacks)
            table = as_table(status)
            assert "INFO            lost data and eviction of keys are not noticed" in table
            assert max(map(len, table.splitlines())) <= 80
        assert await seen.owners() == [""] * PARTITIONS
        assert not hooks.warned, "nothing of this is an outage"


async def _status(url: str) -> Status:
    store = open_store(url)
    link = store.link()
    try:
        return await read_status(link, store, "test")
    finally:
        await link.aclose()


async def _owners_are(seen: Rig, owners: set[str]) -> bool:
    return set(await seen.owners()) == owners


@pytest.mark.parametrize("name", FORBIDDEN)
async def test_each_command_that_is_missed_is_told(start_server: StartServer, name: str):
    url = forbid(start_server(), *FORBIDDEN[name])
    hooks = Notes()
    async with rig(url) as seen, working(totals, url, hooks=hooks, **DURABLE):
        await seen.send("s", 1)
        await seen.answered("s", 1)
        [told] = [data for event, data in hooks.said if "does without" in event]
        assert told == {"lacks": name}


async def test_server_that_lacks_nothing_is_not_mentioned(redis_url: str):
    hooks = Notes()
    async with rig(redis_url), working(totals, redis_url, hooks=hooks, **DURABLE):
        assert not hooks.count("does without")
        status = await _status(redis_url)
        assert as_data(status)["lacks"] == {}
        assert "LACKS" not in as_table(status)


async def test_command_that_was_renamed_away_is_missed_like_a_forbidden_one(
    start_server: StartServer,
):
    """As managed services do it; the answer is another one then."""
    args = [part for name in ("CLIENT", "PUBLISH") for part in ("--rename-command", name, "")]
    url = start_server(args=args).url
    hooks = Notes()
    async with rig(url) as seen:
        async with working(totals, url, hooks=hooks, **DURABLE):
            await seen.send("s", 1)
            await seen.answered("s", 1)
        assert await seen.owners() == [""] * PARTITIONS
    [told] = [data for event, data in hooks.said if "does without" in event]
    assert told == {"lacks": "CLIENT ID, CLIENT UNBLOCK, PUBLISH"}
