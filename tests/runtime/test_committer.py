"""The committer with a link that the test answers by hand: order, resending, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.rig import Notes, until
from wherry.broker.calls import MAX_BYTES, MAX_OPERATIONS, Retention
from wherry.broker.commits import Commit, Emit, Fail, Outcome, each_of
from wherry.broker.link import Command
from wherry.broker.scripts import Scripts
from wherry.broker.wire import Keys
from wherry.engine.ledger import Ledger
from wherry.errors import StoreError, StoreUnavailable
from wherry.model import AttemptsRow, EntryId, Partition, ScopeId, Token
from wherry.runtime import committer as committers
from wherry.runtime.committer import Committer
from wherry.runtime.holding import Holding, Track
from wherry.runtime.queues import Flight
from wherry.runtime.results import Result

RETENTION = Retention(reply_length=1, reply_ttl_ms=1, state_ttl_ms=0)


class Link:
    """Hands each write to the test and waits for its answer."""

    joins_slots = False

    def __init__(self) -> None:
        self.writes: asyncio.Queue[tuple[list[Call], asyncio.Future[list[Any]]]] = asyncio.Queue()

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.writes.put_nowait(([Call(command) for command in commands], answer))
        return await answer

    async def next(self) -> tuple[list[Call], asyncio.Future[list[Any]]]:
        async with asyncio.timeout(5):
            return await self.writes.get()


class Call:
    """What a command of the commit script says."""

    def __init__(self, command: Command) -> None:
        keys = int(command[2])
        self.partition = int(str(command[3]).split(":")[1].rstrip("}"))
        arguments = self.arguments = command[3 + keys :]
        self.parts = int(arguments[0])
        self.token = arguments[5]
        self.flags = str(arguments[6]) if arguments[4] == "m" else ""
        self.is_resent = "r" in self.flags
        self.sets_ttl = [one in "ao" for one in arguments if one in ("a", "A", "o", "O")]
        self.ids = [one for one in arguments if isinstance(one, str) and one.startswith("id-")]


class Desk:
    """A committer with what it told."""

    def __init__(self, retention: Retention) -> None:
        self.link = Link()
        self.hooks = Notes()
        self.told: list[tuple[Holding, Sequence[Result] | None]] = []
        self.committer = Committer(
            self.link,  # type: ignore[arg-type] - it has what the committer uses
            Scripts().commit,
            Keys("ns"),
            retention,
            self.hooks,
            self,
        )

    def settle_done(self, flights: Sequence[Flight]) -> None:
        for flight in flights:
            operations = [(one, track) for step, track in flight.sent for one in each_of(step)]
            results = [Result(*one, Outcome.DONE, "") for one in operations]
            self.settle(flight.queue.holding, results)

    def settle(self, holding: Holding, results: Sequence[Result] | None) -> None:
        self.told.append((holding, results))

    def outcomes(self) -> list[list[Outcome] | None]:
        return [
            None if results is None else [one.outcome for one in results]
            for _, results in self.told
        ]


@asynccontextmanager
async def desk(retention: Retention = RETENTION) -> AsyncGenerator[Desk]:
    made = Desk(retention)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.committer.run())
        yield made
        running.cancel()


def hold(number: int = 0) -> Holding:
    ledger = Ledger(partition=Partition(number), token=Token(f"1:{number}"))
    return Holding(ledger, EntryId("0-0"))


def put(desk: Desk, holding: Holding, *names: str, scope: str = "s") -> Track:
    track = holding.track(ScopeId(scope))
    for name in names:
        desk.committer.put(track, Commit(EntryId(f"id-{name}"), track.scope_id, []))
    return track


async def test_operations_go_in_the_order_in_which_they_were_put_in():
    async with desk() as it:
        holding = hold()
        put(it, holding, "1", scope="a")
        put(it, holding, "2", scope="b")
        put(it, holding, "3", scope="a")
        (call,), answer = await it.link.next()
        assert call.ids == ["id-1", "id-2", "id-3"]
        assert call.token == "1:0"
        assert not call.is_resent
        answer.set_result([[1, 1, 1]])
        await until(lambda: it.told)
        assert it.outcomes() == [[Outcome.DONE] * 3]


async def test_one_call_of_a_partition_is_under_way_and_the_rest_waits():
    async with desk() as it:
        holding = hold()
        put(it, holding, "1")
        _, answer = await it.link.next()
        put(it, holding, "2", "3")
        await asyncio.sleep(0)
        assert it.link.writes.empty()
        answer.set_result([[1]])
        (call,), answer = await it.link.next()
        assert call.ids == ["id-2", "id-3"]
        answer.set_result([[1, 1]])
        await until(lambda: len(it.told) == 2)


async def test_who_waits_for_an_answer_has_its_turn_before_more_is_sent():
    """And the loop another, at whose end uvloop writes what was sent in that one."""
    async with desk() as it:
        put(it, hold(0), "1")
        _, answer = await it.link.next()
        put(it, hold(1), "2")
        sent: list[int] = []

        async def wait() -> None:
            await it.committer.answered(60.0)
            assert it.outcomes() == [[Outcome.DONE]]
            sent.append(it.link.writes.qsize())
            asyncio.get_running_loop().call_soon(lambda: sent.append(it.link.writes.qsize()))

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        answer.set_result([[1]])
        await waiting
        (call,), answer = await it.link.next()
        assert (call.ids, sent) == (["id-2"], [0, 0])
        answer.set_result([[1]])
        await until(lambda: len(it.told) == 2)


async def test_nobody_waits_for_an_answer_that_is_not_under_way_or_does_not_come():
    async with desk() as it:
        await it.committer.answered(60.0)
        put(it, hold(0), "1")
        await it.committer.answered(60.0)
        _, answer = await it.link.next()
        await it.committer.answered(0.0)
        assert not it.told
        put(it, hold(1), "2")
        answer.set_result([[1]])
        (call,), answer = await it.link.next()
        assert call.ids == ["id-2"]
        answer.set_result([[1]])
        await until(lambda: len(it.told) == 2)


async def test_calls_of_one_tick_share_a_write():
    async with desk() as it:
        for number in range(5):
            put(it, hold(number), str(number))
        calls, answer = await it.link.next()
        assert [call.partition for call in calls] == [0, 1, 2, 3, 4]
        answer.set_result([[1]] * 5)
        await until(lambda: len(it.told) == 5)


async def test_partitions_share_a_command_where_one_server_has_all():
    async with desk() as it:
        it.link.joins_slots = True
        for number in range(4):
            put(it, hold(number), str(number))
        (call,), answer = await it.link.next()
        assert (call.parts, call.ids) == (4, ["id-0", "id-1", "id-2", "id-3"])
        answer.set_result([[1, b"FENCED", b"!WRONGTYPE overwritten", [b"bad:why"]]])
        await until(lambda: len(it.told) == 4)
        assert it.outcomes() == [[Outcome.DONE], None, None, [Outcome.BAD]]
        for number in range(2):
            put(it, hold(number), f"later-{number}")
        _, answer = await it.link.next()
        answer.set_exception(StoreUnavailable("gone"))
        (call,), answer = await it.link.next()
        assert (call.parts, call.is_resent) == (2, True)
        answer.set_result([2])
        await until(lambda: len(it.told) == 6)
        assert it.outcomes()[4:] == [[Outcome.DONE]] * 2


async def test_of_a_shared_command_what_was_not_carried_out_is_sent_again():
    async with desk() as it:
        it.link.joins_slots = True
        for number in range(3):
            put(it, hold(number), str(number))
        _, answer = await it.link.next()
        answer.set_result([[1, b"!OOM command not allowed", 1]])
        (call,), answer = await it.link.next()
        assert (call.parts, call.ids, call.is_resent) == (1, ["id-1"], True)
        answer.set_result([[0]])
        await until(lambda: len(it.told) == 3)
        assert it.outcomes() == [[Outcome.DONE]] * 3


async def test_shared_commands_are_bounded():
    async with desk() as it:
        it.link.joins_slots = True
        for number in range(3):
            put(it, hold(number), *(f"{number}-{one}" for one in range(MAX_OPERATIONS // 2)))
        calls, answer = await it.link.next()
        assert [call.parts for call in calls] == [2, 1]
        assert [len(call.ids) for call in calls] == [MAX_OPERATIONS, MAX_OPERATIONS // 2]
        answer.set_result([MAX_OPERATIONS, MAX_OPERATIONS // 2])
        await until(lambda: len(it.told) == 3)
        holding = hold(3)
        large = Commit(EntryId("id-large"), ScopeId("s"), [], size_bytes=MAX_BYTES + 1)
        it.committer.put(holding.track(ScopeId("s")), large)
        put(it, hold(4), "small")
        calls, answer = await it.link.next()
        assert [call.ids for call in calls] == [["id-large"], ["id-small"]]
        answer.set_result([1, 1])
        await until(lambda: len(it.told) == 5)


async def test_a_call_is_sent_again_until_it_is_answered_before_anything_else():
    async with desk() as it:
        holding = hold()
        put(it, holding, "1", "2")
        for turn in range(3):
            (call,), answer = await it.link.next()
            assert call.ids == ["id-1", "id-2"]
            assert call.is_resent == (turn > 0)
            put(it, holding, f"later-{turn}")
            if turn < 2:
                answer.set_exception(StoreUnavailable("gone"))
            else:
                answer.set_result([[0, 0]])
        await until(lambda: it.told)
        assert it.outcomes() == [[Outcome.DONE] * 2], "done the first time"
        (call,), answer = await it.link.next()
        assert call.ids == ["id-later-0", "id-later-1", "id-later-2"]
        assert not call.is_resent
        answer.set_result([[1, 1, 1]])
        await until(lambda: len(it.told) == 2)


async def test_error_of_one_partition_is_sent_again_without_the_others():
    async with desk() as it:
        put(it, hold(0), "1")
        put(it, hold(1), "2")
        _, answer = await it.link.next()
        answer.set_result([StoreUnavailable("READONLY"), [1]])
        (call,), answer = await it.link.next()
        assert (call.ids, call.is_resent) == (["id-1"], True)
        answer.set_result([[1]])
        await until(lambda: len(it.told) == 2)


async def test_already_that_was_not_our_own_resend_is_told():
    async with desk() as it:
        put(it, hold(), "1")
        _, answer = await it.link.next()
        answer.set_result([[0]])
        await until(lambda: it.told)
        assert it.outcomes() == [[Outcome.ALREADY]]


@pytest.mark.parametrize("answered", [b"FENCED", StoreError("WRONGTYPE")])
async def test_fenced_or_refused_for_good_gives_the_partition_up(answered: Any):
    async with desk() as it:
        holding = hold()
        put(it, holding, "1")
        _, answer = await it.link.next()
        answer.set_result([answered])
        await until(lambda: it.told)
        assert it.told == [(holding, None)]


async def test_forgotten_script_is_sent_whole():
    async with desk() as it:
        put(it, hold(), "1")
        _, answer = await it.link.next()
        answer.set_result([StoreError("NOSCRIPT No matching script")])
        (call,), answer = await it.link.next()
        assert (call.ids, call.is_resent) == (["id-1"], False)
        answer.set_result([[1]])
        await until(lambda: it.told)


async def test_calls_are_bounded():
    async with desk() as it:
        holding = hold()
        put(it, holding, *map(str, range(MAX_OPERATIONS + 5)))
        (call,), answer = await it.link.next()
        assert len(call.ids) == MAX_OPERATIONS
        answer.set_result([[1] * MAX_OPERATIONS])
        (call,), answer = await it.link.next()
        assert len(call.ids) == 5
        answer.set_result([[1] * 5])
        await until(lambda: len(it.told) == 2)


async def test_withdrawn_operations_are_not_sent_and_those_under_way_stay():
    async with desk() as it:
        holding = hold()
        put(it, holding, "1", scope="a")
        _, answer = await it.link.next()
        track = put(it, holding, "2", "3", scope="a")
        put(it, holding, "4", scope="b")
        assert track.outstanding == 3
        taken = it.committer.withdraw(holding, ScopeId("a"))
        assert [one.entry_id for one in taken if isinstance(one, Commit)] == ["id-2", "id-3"]
        assert track.outstanding == 1
        answer.set_result([[1]])
        (call,), answer = await it.link.next()
        assert call.ids == ["id-4"]
        answer.set_result([[1]])
        await until(lambda: len(it.told) == 2)


async def test_flush_waits_for_everything_that_was_put_in():
    async with desk() as it, asyncio.TaskGroup() as tasks:
        holding = hold()
        await it.committer.flush(holding)
        put(it, holding, "1")
        flushing = tasks.create_task(it.committer.flush(holding))
        _, answer = await it.link.next()
        put(it, holding, "2")
        answer.set_result([[1]])
        _, answer = await it.link.next()
        assert not flushing.done()
        answer.set_result([[1]])
        await until(flushing.done)


async def test_lost_partition_is_forgotten_and_its_late_answer_too():
    async with desk() as it, asyncio.TaskGroup() as tasks:
        holding = hold()
        put(it, holding, "1")
        _, answer = await it.link.next()
        put(it, holding, "2")
        flushing = tasks.create_task(it.committer.flush(holding))
        await asyncio.sleep(0)
        holding.is_lost = True
        it.committer.discard(holding)
        await until(flushing.done)
        answer.set_exception(StoreUnavailable("gone"))
        put(it, holding, "3")
        again = Holding(Ledger(partition=Partition(0), token=Token("2:x")), EntryId("0-0"))
        put(it, again, "4")
        (call,), answer = await it.link.next()
        assert (call.token, call.ids) == ("2:x", ["id-4"])
        answer.set_result([[1]])
        await until(lambda: it.told)
        assert [one for one, _ in it.told] == [again]


async def test_full_queue_blocks_who_emits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(committers, "QUEUE_LIMIT", 3)
    async with desk() as it, asyncio.TaskGroup() as tasks:
        holding = hold()
        track = holding.track(ScopeId("s"))

        async def emit(number: int) -> None:
            it.committer.put(track, Emit(number, "", track.scope_id, [b""]))
            await it.committer.wait_room(holding)

        await emit(1)
        _, answer = await it.link.next()
        for number in range(2, 4):
            await emit(number)
        blocked = tasks.create_task(emit(4))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not blocked.done()
        answer.set_result([[1]])
        _, answer = await it.link.next()
        answer.set_result([[1, 1, 1]])
        await until(blocked.done)


async def test_pauses_between_attempts_grow_but_stay_short():
    async with desk() as it:
        put(it, hold(), "1")
        for _ in range(4):
            _, answer = await it.link.next()
            answer.set_exception(StoreUnavailable("gone"))
        _, answer = await it.link.next()
        answer.set_result([[1]])
        await until(lambda: it.told)
        pauses = [data["duration_s"] for text, data in it.hooks.said if "committing waits" in text]
        assert pauses == [0.05, 0.1, 0.2, 0.4]


def answer_to(desk: Desk, holding: Holding, name: str, scope: str) -> Track:
    track = holding.track(ScopeId(scope))
    desk.committer.answer(track, EntryId(f"id-{name}"), b"reply")
    return track


async def test_time_to_live_is_set_again_when_it_is_not_young_any_more():
    async with desk(Retention(reply_length=1, reply_ttl_ms=3_600_000, state_ttl_ms=0)) as it:
        holding = hold()
        put(it, holding, "0", scope="x")  # writes no reply, so it sets none
        answer_to(it, holding, "1", "y")
        (call,), answer = await it.link.next()
        assert call.sets_ttl == [True]
        answer.set_result([2])
        answer_to(it, holding, "2", "x")
        track = answer_to(it, holding, "3", "y")
        (call,), answer = await it.link.next()
        assert call.sets_ttl == [True, False]
        answer.set_result([[1, b"stale"]])
        answer_to(it, holding, "4", "x")
        (call,), answer = await it.link.next()
        assert call.sets_ttl == [True], "not all took effect, so nothing is known"
        answer.set_result([1])
        track.young_until_s = asyncio.get_running_loop().time()
        answer_to(it, holding, "5", "x")
        answer_to(it, holding, "6", "y")
        (call,), answer = await it.link.next()
        assert call.sets_ttl == [False, True]
        answer.set_exception(StoreUnavailable("gone"))
        (call,), answer = await it.link.next()
        assert call.sets_ttl == [True, True], "nobody knows how much later that is"
        answer.set_result([2])
        await until(lambda: len(it.told) == 4)
        left_s = track.young_until_s - asyncio.get_running_loop().time()
        assert 0 < left_s <= 3600 / 16


async def test_failed_attempts_are_looked_for_only_where_there_are_any():
    async with desk() as it:
        for number in range(3):
            holding = hold(number)
            if number == 1:
                holding.attempts[EntryId("id-1")] = AttemptsRow(attempts=1)
            put(it, holding, str(number))
            if number == 2:
                fail = Fail(EntryId("id-3"), ScopeId("s"), b"row")
                it.committer.put(holding.track(ScopeId("s")), fail)
        calls, answer = await it.link.next()
        assert ["f" in call.flags for call in calls] == [False, True, True]
        answer.set_result([1, 1, 2])
        await until(lambda: len(it.told) == 3)
        failed = it.told[1][0]
        failed.attempts.clear()
        put(it, failed, "4")
        (call,), answer = await it.link.next()
        assert "f" in call.flags, "for the whole tenure"
        answer.set_result([1])
        await until(lambda: len(it.told) == 4)
