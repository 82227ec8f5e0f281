"""Suspects in one worker: alone, one after the other, and what ends a probe."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.rig import Notes, Rig, rig, until, working
from wherry import Worker
from wherry.broker.attempts import pack_row, read_row
from wherry.engine.suspects import DEATH
from wherry.model import AttemptsRow, EntryId, ScopeId

PROBED = "a message that may have killed a process is run alone"
OVERRUN = "a message that runs alone takes long; it goes on beside the others"
SUSPECT = AttemptsRow(crashes=5)


class Busy:
    """Works at each message until it is told that it may finish.

    Attributes:
        running: scopes at work, in the order in which they began.
        begun: every scope that began, in order.
        called: scopes in the order in which the application was called for them.
        together: the most that were at work at a time while a suspect was.
    """

    def __init__(self, *suspects: str) -> None:
        self.suspects = set(suspects)
        self.running: list[str] = []
        self.begun: list[str] = []
        self.called: list[str] = []
        self.together = 0
        self.gates: dict[str, asyncio.Event] = {}

    def let(self, *scopes: str) -> None:
        for scope in scopes:
            self.gate(scope).set()

    def gate(self, scope: str) -> asyncio.Event:
        return self.gates.setdefault(scope, asyncio.Event())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["scope_id"]
        self.called.append(name)
        while True:
            message = await receive()
            self.running.append(name)
            self.begun.append(name)
            if self.suspects.intersection(self.running):
                self.together = max(self.together, len(self.running))
            try:
                if message.get("raises") == message["wherry"]["attempt"]:
                    raise ValueError("no")
                await self.gate(name).wait()
            finally:
                self.running.remove(name)
            await send({"type": "t", "number": message["number"]})


async def suspect(seen: Rig, scope: str, row: AttemptsRow = SUSPECT, **more: Any) -> EntryId:
    """A message that was in hand at two deaths, as far as its row says."""
    entry_id = EntryId(await seen.send(scope, {"type": "n", "number": 1} | more))
    await seen.link.call("HSET", seen.keys.attempts(seen.partition(scope)), entry_id, pack_row(row))
    return entry_id


async def row_of(seen: Rig, scope: str, entry_id: str) -> AttemptsRow | None:
    packed = await seen.link.call("HGET", seen.keys.attempts(seen.partition(scope)), entry_id)
    return read_row(packed) if packed else None


async def test_suspects_run_alone_and_one_after_the_other(redis_url: str):
    names = [f"bad{n}" for n in range(30)]
    app, hooks = Busy(*names), Notes()
    app.let(*names)
    async with rig(redis_url) as seen:
        for name in names:
            await suspect(seen, name)
            await seen.send(name, 2)
        async with working(app, redis_url, hooks=hooks):
            for n in range(20):
                app.let(f"s{n}")
                await seen.send_many([(f"s{n}", 1), (f"s{n}", 2)])
            await seen.drained()
        assert app.together == 1
        assert hooks.count(PROBED) == 30
        for name in [*names, *(f"s{n}" for n in range(20))]:
            assert await seen.numbers(name) == [1, 2]
        assert await seen.leftovers() == set()


async def test_the_mark_is_in_redis_before_a_suspect_starts(redis_url: str):
    found: list[AttemptsRow | None] = []
    async with rig(redis_url) as seen:
        bad = await suspect(seen, "bad")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            found.append(await row_of(seen, "bad", bad))
            await receive()

        async with working(app, redis_url):
            await seen.drained()
        (row,) = found
        assert row is not None
        assert row.probe.startswith("1:")


async def test_a_crash_is_counted_in_redis_before_the_counted_one_starts(redis_url: str):
    """Or a message that kills at once would never be counted."""
    found: list[AttemptsRow | None] = []
    async with rig(redis_url) as seen:
        fields = ("owner", "dead", "token", "7:x", "epoch", "7", "expiry", "1", "emit", "0")
        await seen.link.call("HSET", seen.keys.lease(seen.partition("a")), *fields)
        first = EntryId(await seen.send("a", 1))
        await seen.send_many([("a", 2), *((f"s{n}", n) for n in range(200))])

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["scope_id"] == "a":
                found.append(await row_of(seen, "a", first))
            while True:
                await receive()

        async with working(app, redis_url):
            await seen.drained()
        assert found == [AttemptsRow(crashes=1)]
        assert await seen.leftovers() == set()


async def test_nothing_starts_beside_a_suspect_and_all_goes_on_behind_it(redis_url: str):
    app, hooks = Busy("bad"), Notes()
    async with rig(redis_url) as seen:
        async with working(app, redis_url, hooks=hooks, probe_s=30.0) as worker:
            app.let("a")
            await seen.send("a", 1)  # its instance is there before
            await seen.answered("a", 1)
            app.gate("a").clear()
            await late_suspect(worker, seen)
            await until(lambda: app.running == ["bad"])
            await seen.send_many([("a", 2), ("b", 1), ("bad", 2)])
            await until(lambda: worker._holdings.in_flight()[0] == 4)
            await asyncio.sleep(0.1)
            assert app.running == ["bad"]
            assert app.called == ["a", "bad"]
            app.let("a", "b", "bad")
            await seen.drained()
        assert app.together == 1
        assert await seen.numbers("a") == [1, 2]
        assert await seen.numbers("bad") == [1, 2]


async def late_suspect(worker: Worker, seen: Rig) -> None:
    """A suspect for a worker that is at work already: it knows the row before it reads."""
    holding = worker._holdings.find(ScopeId("bad"))
    assert holding is not None
    later = EntryId("9999999999999-1")
    holding.attempts[later] = SUSPECT
    fields = ("s", "bad", "j", '{"type": "n", "number": 1}')
    await seen.link.call("XADD", seen.input("bad"), later, *fields)


async def test_suspect_waits_until_nothing_runs_and_cuts_off_what_does_not_end(redis_url: str):
    """The patience is that of a drain; who is cut off is begun again, which is no failure."""
    app, hooks = Busy("bad"), Notes()
    async with rig(redis_url) as seen:
        await seen.send("long", 1)
        async with working(app, redis_url, hooks=hooks, drain_timeout_s=1.5) as worker:
            await until(lambda: app.running == ["long"])
            await late_suspect(worker, seen)
            app.let("bad")
            await seen.answered("bad", 1)
            await until(lambda: app.running == ["long"])
            app.let("long")
            await seen.drained()
        assert app.begun == ["long", "bad", "long"]
        assert app.together == 1
        assert hooks.count("a running message is cut off, as one must run alone") == 1
        assert await seen.dead() == []


async def test_suspect_that_raises_has_failed_an_attempt_as_any_other(redis_url: str):
    app, hooks = Busy("bad"), Notes()
    app.let("bad")
    async with rig(redis_url) as seen:
        bad = await suspect(seen, "bad", raises=1)
        async with working(app, redis_url, hooks=hooks, retry_backoff_s=1.0):
            row = await until(lambda: failed_row(seen, bad))
            assert (row.attempts, row.crashes, row.probe) == (1, 5, "")
            assert row.error == "ValueError: no"
            await seen.drained()
        assert hooks.count(PROBED) == 2
        assert await seen.numbers("bad") == [1]


async def failed_row(seen: Rig, bad: EntryId) -> AttemptsRow | None:
    row = await row_of(seen, "bad", bad)
    return row if row is not None and row.attempts else None


async def test_suspect_that_hangs_is_let_go_on_beside_the_others(redis_url: str):
    app, hooks = Busy("bad"), Notes()
    app.let("a")
    async with rig(redis_url) as seen:
        bad = await suspect(seen, "bad")
        async with working(app, redis_url, hooks=hooks, probe_s=0.2):
            await until(lambda: app.running == ["bad"])
            await seen.send("a", 1)
            await seen.answered("a", 1)
            assert hooks.count(OVERRUN) == 1
            assert await row_of(seen, "bad", bad) == SUSPECT
            app.let("bad")
            await seen.drained()
        assert app.begun == ["bad", "a"]


async def test_drain_during_a_probe_leaves_no_mark_and_no_failure(redis_url: str):
    app = Busy("bad")
    async with rig(redis_url) as seen:
        bad = await suspect(seen, "bad")
        async with working(app, redis_url, drain_timeout_s=0.2):
            await until(lambda: app.running == ["bad"])
        assert await row_of(seen, "bad", bad) == SUSPECT
        assert set(await seen.owners()) == {""}
        app.let("bad")
        async with working(app, redis_url):
            await seen.drained()
        assert await seen.numbers("bad") == [1]


async def test_drain_lets_a_probe_finish(redis_url: str):
    app = Busy("bad")
    async with rig(redis_url) as seen:
        await suspect(seen, "bad")
        async with working(app, redis_url) as worker:
            await until(lambda: app.running == ["bad"])
            worker.request_stop()
            app.let("bad")
        assert await seen.numbers("bad") == [1]
        assert await seen.leftovers() == set()


async def test_lease_lost_during_a_probe_lets_the_others_go_on(redis_url: str):
    app = Busy("bad")
    app.let("b")
    async with rig(redis_url) as seen:
        await suspect(seen, "bad")
        async with working(app, redis_url, probe_s=30.0):
            await until(lambda: app.running == ["bad"])
            await seen.link.call("DEL", seen.keys.lease(seen.partition("bad")))
            await seen.send("b", 1)
            await seen.answered("b", 1)
            app.let("bad")
            await seen.drained()
        assert await seen.numbers("bad") == [1]


@pytest.mark.parametrize("is_previous", [True, False])
async def test_only_a_mark_of_the_owner_that_died_is_a_death(redis_url: str, is_previous: bool):
    app = Busy("bad")
    app.let("bad")
    async with rig(redis_url) as seen:
        lease = seen.keys.lease(seen.partition("bad"))
        fields = ("owner", "dead", "token", "7:mine", "epoch", "7", "expiry", "1", "emit", "0")
        await seen.link.call("HSET", lease, *fields)
        probe = "7:mine" if is_previous else "6:other"
        row = AttemptsRow(attempts=4, crashes=5, probe=probe)
        bad = await suspect(seen, "bad", row)
        async with working(app, redis_url, max_attempts=5):
            await seen.drained()
        if is_previous:
            (letter,) = await seen.dead()
            assert (letter["id"], letter["error"]) == (bad.encode(), DEATH.encode())
            assert (letter["attempts"], app.begun) == (b"5", [])
        else:
            assert await seen.numbers("bad") == [1]


async def test_suspect_that_vanished_or_expired_holds_nobody_up(redis_url: str):
    app = Busy("bad", "late")
    app.let("bad", "late", "gone")
    async with rig(redis_url) as seen:
        gone = await suspect(seen, "gone")
        late = EntryId(await seen.send("late", 1, x="1"))
        key = seen.keys.attempts(seen.partition("late"))
        await seen.link.call("HSET", key, late, pack_row(SUSPECT))
        await suspect(seen, "bad")
        await seen.send_many([("gone", 2), ("late", 2)])
        async with working(app, redis_url) as worker:
            holding = await until(lambda: parked(worker, gone))
            await seen.link.call("XDEL", seen.input("gone"), gone)
            await seen.drained()
            assert not holding.suspects
            await until(lambda: worker._tracked.gate is None)
        assert app.begun.count("gone") == app.begun.count("late") == 1


def parked(worker: Worker, entry_id: EntryId) -> Any:
    return next((one for one in worker._holdings.all() if entry_id in one.suspects), None)
