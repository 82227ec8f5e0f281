"""A paused namespace: what has begun is finished, nothing else begins, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from tests.e2e.rig import Rig, echo, rig, until, working
from tests.e2e.test_control import shown
from tests.e2e.test_durable import DURABLE, running_totals, totals
from tests.servers_plugin import StartServer
from wherry.broker.attempts import pack_row
from wherry.broker.connect import open_store
from wherry.broker.leases import read_members
from wherry.cli.pausing import Paused, pause
from wherry.engine.suspects import SUSPECT_FROM
from wherry.errors import StoreUnavailable
from wherry.model import AttemptsRow, MemberInfo

SCOPES = 12


async def set_paused(url: str, *, paused: bool, until_idle: bool = False) -> Paused:
    """As the command does it; returns when every worker has said so."""
    return await pause(open_store(url), "test", paused=paused, within_s=15.0, until_idle=until_idle)


async def members(seen: Rig) -> Sequence[MemberInfo]:
    return await read_members(seen.link, seen.keys)  # type: ignore[arg-type]


async def some_beats(seen: Rig, beats: int = 5) -> None:
    """Return when every worker has beaten so often: it had the time to do what it must not."""

    async def ups() -> dict[str, int]:
        return {one.worker_id: int(one.fields["up_ms"]) for one in await members(seen)}

    before = await ups()
    for _ in range(beats):
        start = await ups()

        async def all_have(start: dict[str, int] = start) -> bool:
            now = await ups()
            return all(now.get(name, 10**9) > up for name, up in start.items())

        await until(all_have)
    assert before


async def effects(seen: Rig) -> int:
    """Replies of all scopes."""
    return sum([len(await seen.replies(f"s{scope}")) for scope in range(SCOPES)])


@pytest.mark.limit_s(90)
async def test_pause_stops_effects_and_resume_goes_on_with_nothing_lost_or_doubled(redis_url: str):
    async with rig(redis_url) as seen, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(working(totals, redis_url, **DURABLE))
        sent = 0
        for part in range(3):
            await seen.send_many([(f"s{n % SCOPES}", n) for n in range(sent, sent + 900)])
            sent += 900
            await until(lambda part=part: seen_enough(seen, part * 960 + 150))
            found = await set_paused(redis_url, paused=True, until_idle=True)
            assert (len(found.members), found.busy) == (2, 0)
            await until(lambda: all_written(seen))
            done = await effects(seen)
            await seen.send_many([(f"s{n % SCOPES}", n) for n in range(sent, sent + 60)])
            sent += 60
            await some_beats(seen)
            assert await effects(seen) == done, "nothing has effect while paused"
            assert await seen.backlog() == sent - done
            assert all(await seen.owners()), "leases are kept"
            await set_paused(redis_url, paused=False)
            await seen.drained()
        for scope in range(SCOPES):
            numbers = list(range(scope, sent, SCOPES))
            assert await seen.numbers(f"s{scope}") == running_totals(numbers)
            assert await seen.state(f"s{scope}") == {"total": sum(numbers)}
        assert await seen.dead() == []


async def seen_enough(seen: Rig, count: int) -> bool:
    return await effects(seen) >= count


async def all_written(seen: Rig) -> bool:
    """Whether no worker has a commit under way: its counts do not change between two beats."""
    return all(int(one.fields["last_done"]) == 0 for one in await members(seen))


async def test_read_that_blocks_at_the_moment_of_the_pause_brings_nothing(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url, block_s=10, socket_timeout_s=15):
        await seen.send("a", 1)
        await seen.answered("a", 1)
        await set_paused(redis_url, paused=True)
        await seen.send("a", 2)  # the read that blocks is woken by it
        await some_beats(seen)
        assert await seen.numbers("a") == [1]
        assert [one.fields["in_flight"] for one in await members(seen)] == ["0"]
        await seen.send("a", 3)
        await set_paused(redis_url, paused=False)
        await seen.answered("a", 3)
        assert await seen.numbers("a") == [1, 2, 3]


async def test_what_has_begun_is_finished_and_what_waits_behind_it_does_not_begin(redis_url: str):
    begun: list[int] = []
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            begun.append(message["number"])
            await go_on.wait()
            await send({"type": "echo", "number": message["number"]})

    async with rig(redis_url) as seen, working(slow, redis_url):
        await seen.send_many([("a", 1), ("a", 2), ("a", 3)])
        await until(lambda: begun)
        found = await set_paused(redis_url, paused=True)
        assert found.busy == 1
        go_on.set()
        await seen.answered("a", 1)
        await set_paused(redis_url, paused=True, until_idle=True)
        await some_beats(seen)
        assert begun == [1]
        await set_paused(redis_url, paused=False)
        await seen.answered("a", 3)
        assert begun == [1, 2, 3]


async def test_failed_message_is_not_tried_again_while_paused(redis_url: str):
    """What it needs may be down, which is why somebody pauses: it shall not use up its attempts."""
    tried = 0
    is_mended = False

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        nonlocal tried
        await receive()
        tried += 1
        if not is_mended:
            raise ConnectionError("the database is down")
        await send({"type": "echo", "number": tried})

    async with rig(redis_url) as seen, working(failing, redis_url, max_attempts=1000):
        await seen.send("a", 1)
        await until(lambda: tried > 2)
        await set_paused(redis_url, paused=True, until_idle=True)
        before = tried
        await some_beats(seen)
        assert tried == before
        is_mended = True
        await set_paused(redis_url, paused=False)
        await seen.answered("a", 1)
        assert await seen.dead() == []


async def test_worker_that_starts_while_paused_stays_paused_until_resumed(redis_url: str):
    async with rig(redis_url) as seen:
        async with working(echo, redis_url):
            await set_paused(redis_url, paused=True)
        await seen.send("a", 1)
        async with working(echo, redis_url) as worker:
            assert all(await seen.owners()), "it takes its part of the partitions"
            await some_beats(seen)
            assert [one.fields["state"] for one in await members(seen)] == ["paused"]
            assert worker.tallies.done == 0
            await set_paused(redis_url, paused=False)
            await seen.answered("a", 1)


async def test_pause_survives_a_restart_of_redis(start_server: StartServer):
    server = start_server(append_only=True)
    async with rig(server.url) as seen, working(echo, server.url) as worker:
        await set_paused(server.url, paused=True)
        server.restart()

        async def sends() -> bool:
            with suppress(StoreUnavailable):
                return bool(await seen.send("a", 1))
            return False

        await until(sends)
        await some_beats(seen)
        assert [one.fields["state"] for one in await members(seen)] == ["paused"]
        assert worker.tallies.done == 0
        await set_paused(server.url, paused=False)
        await seen.answered("a", 1)


async def test_paused_worker_drains_and_hands_on_what_it_did_not_begin(redis_url: str):
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await go_on.wait()
            await send({"type": "echo", "number": message["number"]})

    async with rig(redis_url) as seen:
        async with working(slow, redis_url) as worker:
            await seen.send_many([("a", 1), ("a", 2), ("b", 3)])

            async def both_begun() -> bool:
                return [one.fields["busy"] for one in await members(seen)] == ["2"]

            await until(both_begun)
            await set_paused(redis_url, paused=True)
            go_on.set()
            worker.request_stop()
        assert worker.has_drained
        assert await seen.backlog() == 1
        assert not any(await seen.owners())
        async with working(echo, redis_url):
            await set_paused(redis_url, paused=False)
            await seen.answered("a", 2)
        assert (await seen.numbers("a"), await seen.numbers("b")) == ([1, 2], [3])


async def test_suspect_is_not_probed_while_paused(redis_url: str):
    begun: list[str] = []
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        begun.append(scope["scope_id"])
        await go_on.wait()
        await send({"type": "echo", "number": message["number"]})

    async with rig(redis_url) as seen:
        suspect = await seen.send("suspect", 1)
        row = pack_row(AttemptsRow(crashes=SUSPECT_FROM))
        await seen.link.call("HSET", seen.keys.attempts(seen.partition("suspect")), suspect, row)
        await seen.send("innocent", 2)
        async with working(slow, redis_url):
            await until(lambda: begun)

            async def is_ready() -> bool:
                instance = (await shown(redis_url, "suspect")).instance
                return instance is not None and instance["state"] == "starting"

            await until(is_ready)
            await set_paused(redis_url, paused=True)
            go_on.set()
            await set_paused(redis_url, paused=True, until_idle=True)
            await some_beats(seen)
            assert begun == ["innocent"]
            await set_paused(redis_url, paused=False)
            await seen.answered("suspect", 1)
        assert await seen.leftovers() == set()


async def test_pause_that_was_written_by_hand_is_one_and_ends_no_worker(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url):
        await seen.link.call("HSET", seen.keys.meta, "paused", "yes")
        await some_beats(seen)
        await seen.send("a", 1)
        await some_beats(seen)
        assert await seen.backlog() == 1
        await set_paused(redis_url, paused=False)
        await seen.answered("a", 1)
