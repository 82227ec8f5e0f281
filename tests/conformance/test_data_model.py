"""What lies in a store is what docs/protocol.md says, where it says, and no longer than it says."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

from tests.conformance.parts import at_work, client, seeing, totals
from tests.e2e.rig import PARTITIONS, until
from tests.stores import Key, Place
from wherry.model import partition_of

FOR_EVER, EXPIRES = True, False
# Key -> its type, and whether it lives for ever.
DOCUMENTED = {
    r"\{wherry\}:meta": ("hash", FOR_EVER),
    r"\{wherry\}:(members|joined)": ("zset", EXPIRES),
    r"\{wherry\}:member:.+": ("hash", EXPIRES),
    r"\{wherry:\d\}:in": ("stream", FOR_EVER),
    r"\{wherry:\d\}:lease": ("hash", FOR_EVER),
    r"\{wherry:\d\}:out:[^~].*": ("stream", EXPIRES),
    r"\{wherry:\d\}:out:~.+": ("stream", EXPIRES),
    r"\{wherry:\d\}:scope:.+": ("hash", FOR_EVER),
    r"\{wherry:\d\}:attempts": ("hash", FOR_EVER),
    r"\{wherry:\d\}:sent:.+": ("string", EXPIRES),
    r"\{wherry:\d\}:dead": ("stream", FOR_EVER),
}


def documented(name: str) -> str | None:
    return next((one for one in DOCUMENTED if re.fullmatch(one, name)), None)


async def picky(scope: Any, receive: Any, send: Any) -> None:
    """Refuse negative numbers."""
    while True:
        message = await receive()
        scope["durable"]["last"] = message["number"]
        await send({"type": "seen", "number": message["number"]})
        if message["number"] < 0:
            raise ValueError("negative")


async def test_every_key_is_documented_and_lives_as_long_as_it_should(place: Place):
    scopes = [f"s{n}" for n in range(24)]
    settings: dict[str, Any] = {"max_attempts": 2, "retry_backoff_s": 600.0}
    async with (
        seeing(place) as seen,
        client(place) as producer,
        at_work(picky, place, **settings) as worker,
    ):
        for scope in scopes:
            message = {"type": "n", "number": 1}
            assert await producer.request(scope, message, message_id=scope) == [
                {"type": "seen", "number": 1}
            ]
        await seen.drained()
        await producer.send("s0", {"type": "n", "number": -1})
        await seen.send_fields("nobody", "j", "{}")
        await until(lambda: _has(place, r"\{wherry:\d\}:attempts", r"\{wherry:\d\}:dead"))
        keys = place.keys()
        assert worker.worker_id in "".join(keys)
    found: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for name, key in keys.items():
        found[documented(name) or name].add((key.kind, key.ttl_ms < 0))
    assert found == {name: {kind} for name, kind in DOCUMENTED.items()}
    for partition in range(PARTITIONS):
        assert len(_places(keys, f"{{wherry:{partition}}}")) == 1, "each on one server"


def _has(place: Place, *wanted: str) -> bool:
    names = {documented(name) for name in place.keys()}  # noqa: SIM118 - a method of its own
    return names >= set(wanted)


def _places(keys: Any, tag: str) -> set[int]:
    found: dict[str, Key] = keys
    return {key.place for name, key in found.items() if name.startswith(tag)}


async def test_partitions_are_spread_over_the_servers_that_have_data(place: Place):
    servers = sum(1 for _ in place.clients())
    async with seeing(place), at_work(totals, place):
        keys = place.keys()
    owning = [_places(keys, f"{{wherry:{partition}}}:lease") for partition in range(PARTITIONS)]
    assert len(set.union(*owning)) == servers


async def test_message_by_hand_is_handled_like_any_other(place: Place):
    """As JSON, with nothing but the two fields; what cannot be one is a dead letter, at once."""
    async with seeing(place) as seen, at_work(totals, place):
        message = json.dumps({"type": "n", "number": 7})
        entry_id = await seen.send_fields("alice", "s", "alice", "j", message)
        [reply] = await seen.answered("alice", 1)
        assert reply.cause == entry_id
        assert reply.message == {"type": "total", "total": 7, "number": 7}
        assert seen.partition("alice") == partition_of("alice", PARTITIONS)
        for fields in (("s", "alice", "j", "{"), ("s", "~alice", "j", message), ("x", "y")):
            await seen.send_fields("alice", *fields)
        await seen.drained()
        assert len(await seen.dead()) == 3
        assert len(await seen.replies("alice")) >= 1
