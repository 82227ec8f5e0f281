"""What docs/redis.md says: the users of its page, each with exactly its rights, and its snippet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.rig import PARTITIONS, QUICK, Notes, rig, until, working
from tests.examples.processes import ROOT
from tests.servers import Server
from tests.servers_plugin import StartServer
from tests.stores import acl_users
from tests.test_docs import blocks
from wherry import Client, Config, StoreRefused
from wherry.broker.capabilities import MISSED
from wherry.broker.connect import open_store
from wherry.broker.namespaces import set_pause
from wherry.broker.options import TLS_OPTIONS
from wherry.broker.urls import SCHEMES
from wherry.broker.wire import Keys
from wherry.cli.show import read_status

PAGE = "docs/redis.md"
SETTINGS: dict[str, Any] = {**QUICK, "namespace": "wherry"}
CONFIG = Config(**SETTINGS, backlog=50)


@pytest.fixture
def users(any_server: Server) -> Iterator[dict[str, str]]:
    """All users of the page on each kind of server -> the URL of each."""
    made = acl_users()
    for words in made.values():
        said = any_server.command(*words)
        assert said.startswith(b"+OK"), (words, said)
    yield {name: any_server.url.replace("://", f"://{name}:secret@") for name in made}
    for name in made:
        any_server.command("ACL", "DELUSER", name)
    any_server.command("ACL", "LOG", "RESET")


def denied(server: Server) -> list[bytes]:
    """What was refused to somebody."""
    return re.findall(rb"object\r\n\$\d+\r\n([^\r]+)", server.command("ACL", "LOG"))


async def fails(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    if message["number"] < 0:
        raise ValueError("refused on purpose")
    await send({"type": "done", "number": message["number"]})


@pytest.mark.limit_s(90)
async def test_users_of_the_page_have_the_rights_that_they_need(
    users: dict[str, str], any_server: Server
):
    """Two workers that share and hand over; sending, asking, following, dead letters, status."""
    worker, hooks = users["worker"], Notes()
    settings = SETTINGS | {"durable_state": True, "max_attempts": 2}
    assert any_server.command("ACL", "LOG", "RESET").startswith(b"+OK")
    async with rig(worker, namespace="wherry") as seen:
        async with (
            working(fails, worker, hooks=hooks, **settings),
            Client(users["producer"], config=CONFIG) as producer,
            Client(users["reader"], config=CONFIG) as reader,
            Client(users["operator"], config=CONFIG) as operator,
        ):
            async with working(fails, worker, **settings):
                await producer.send("s", {"type": "n", "number": 1}, message_id="k")
                await producer.send_many([("s", {"type": "n", "number": 2})])
                answer = await producer.request("s", {"type": "n", "number": 3})
                assert answer == [{"type": "done", "number": 3}]
            async for reply in reader.replies("s", follow=True, heartbeat_s=5):
                assert reply is not None
                if getattr(reply, "message", {}) == {"type": "done", "number": 3}:
                    break
            bad = await producer.send("s", {"type": "n", "number": -1})
            await until(lambda: _letters(operator))
            [partition] = await until(lambda: _letters(operator))
            [letter] = await operator.dead_letters.page(partition)
            assert letter.entry_id == bad
            await operator.dead_letters.replay(partition, letter.letter_id)
            [again] = await until(lambda: _page(operator, partition, letter.letter_id))
            await operator.dead_letters.drop(partition, again.letter_id)
            store = open_store(users["operator"])
            link = store.link()
            status = await read_status(link, store, "wherry")
            for is_paused in (True, False):
                await set_pause(link, Keys("wherry"), paused=is_paused)
            await link.aclose()
            assert len(status.partitions) == PARTITIONS
            assert len(status.members) >= 1
        assert set(await seen.owners()) == {""}
    assert denied(any_server) == []


async def _letters(client: Client) -> list[Any]:
    found = []
    for partition in await client.dead_letters.partitions():
        if await client.dead_letters.page(partition):
            found.append(partition)
    return found


async def _page(client: Client, partition: Any, but: str) -> list[Any]:
    page = await client.dead_letters.page(partition)
    return [one for one in page if one.letter_id != but]


async def test_users_of_the_page_may_do_nothing_else(users: dict[str, str]):
    elsewhere, own = "{other:1}:in", "{wherry:1}:in"
    for name, url in users.items():
        link = open_store(url).link()
        for command in (
            ("XADD", elsewhere, "*", "s", "x"),
            ("GET", "somebody's"),
            ("CONFIG", "GET", "*"),
            ("FLUSHALL",),
            ("KEYS", "*"),
        ):
            with pytest.raises(StoreRefused):
                await link.call(*command)
        if name == "reader":
            for command in (("XADD", own, "*", "s", "x"), ("XREAD", "STREAMS", own, "0")):
                with pytest.raises(StoreRefused):
                    await link.call(*command)
        await link.aclose()


async def test_producer_of_the_page_sends_surely(start_server: StartServer):
    primary, replica = start_server(), start_server()
    replica.command("REPLICAOF", "127.0.0.1", str(primary.port))
    [snippet] = [body for body in blocks(PAGE, "python") if "send_surely" in body]
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102 - the page's own snippet
    words = acl_users()["producer"]
    assert primary.command(*words).startswith(b"+OK")
    async with rig(primary.url, namespace="wherry") as seen:
        url = primary.url.replace("://", "://producer:secret@")
        async with Client(url, config=CONFIG) as client:
            entry_id = await names["send_surely"](client, "a", {"type": "n", "number": 1}, "k")
            assert entry_id == await names["send_surely"](client, "a", {"type": "n"}, "k")
        assert await seen.backlog() == 1


def test_page_tells_of_every_scheme_option_and_capability():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    own = {"embedded", "memory"}
    missing = [name for name in SCHEMES if name not in own and name not in text]
    missing += [name for name in (*TLS_OPTIONS, *MISSED) if f"`{name}`" not in text]
    assert [name for name in missing if name != "script flags"] == []
