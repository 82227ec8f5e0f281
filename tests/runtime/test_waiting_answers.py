"""Answers that wait: those of a scope are one step of a call, and each has its own outcome."""

from __future__ import annotations

from typing import Any

from tests.e2e.rig import until
from tests.runtime.test_committer import Call, Desk, desk, hold, put
from wherry.broker.calls import MAX_BYTES, MAX_OPERATIONS
from wherry.broker.commits import MOST_ARGUMENTS, Answer, Answers, Commit, Outcome, StateChange
from wherry.model import EntryId, ScopeId
from wherry.runtime.holding import Holding, Track


def answer_to(
    desk: Desk, holding: Holding, *names: str, scope: str = "s", state: StateChange | None = None
) -> Track:
    track = holding.track(ScopeId(scope))
    for name in names:
        desk.committer.answer(track, EntryId(f"id-{name}"), f"reply-{name}".encode(), state)
    return track


def heads(call: Call) -> list[tuple[str, Any]]:
    """Letter and count of each group of answers, as commands begin them."""
    found: list[tuple[str, Any]] = []
    for at, one in enumerate(call.arguments):
        if one == "a":
            found.append(("a", call.arguments[at + 2]))
        elif one == "s":
            found.append(("s", call.arguments[at + 4]))
    return found


async def test_answers_of_a_scope_go_together_though_others_were_put_in_between():
    async with desk() as it:
        holding = hold()
        one = answer_to(it, holding, "1", "2", scope="a")
        answer_to(it, holding, "3", scope="b")
        answer_to(it, holding, "4", scope="a")
        assert one.outstanding == 3
        (call,), answer = await it.link.next()
        assert heads(call) == [("a", 3), ("a", 1)]
        assert call.ids == ["id-1", "id-2", "id-4", "id-3"]
        assert [one for one in call.arguments if isinstance(one, bytes)] == [
            b"reply-1", b"reply-2", b"reply-4", b"reply-3",
        ]  # fmt: skip
        answer.set_result([4])
        await until(lambda: it.told)
        assert it.outcomes() == [[Outcome.DONE] * 4]


async def test_answers_stay_behind_what_was_put_in_before_them_for_their_scope():
    async with desk() as it:
        holding = hold()
        answer_to(it, holding, "1", scope="a")
        put(it, holding, "2", scope="a")
        answer_to(it, holding, "3", scope="a")
        (call,), answer = await it.link.next()
        assert call.ids == ["id-1", "id-2", "id-3"]
        answer.set_result([3])
        answer_to(it, holding, "4", scope="a")
        (call,), answer = await it.link.next()
        assert call.ids == ["id-4"], "what is under way grows no more"
        answer.set_result([1])
        await until(lambda: len(it.told) == 2)


async def test_states_that_follow_one_another_go_together_and_others_do_not():
    async with desk() as it:
        holding = hold()
        for name, before in (("1", ""), ("2", "id-1"), ("3", "id-9"), ("4", "id-3")):
            answer_to(it, holding, name, state=StateChange(before, name.encode()))
        answer_to(it, holding, "5")
        answer_to(it, holding, "6", state=StateChange("id-4", b"6"))
        (call,), answer = await it.link.next()
        assert heads(call) == [("s", 2), ("s", 2), ("a", 1), ("s", 1)]
        assert call.ids == ["id-1", "id-2", "id-9", "id-3", "id-4", "id-5", "id-4", "id-6"]
        answer.set_result([6])
        await until(lambda: it.told)


async def test_each_answer_has_its_own_outcome():
    async with desk() as it:
        holding = hold()
        track = answer_to(it, holding, "1", "2")
        for name, before in (("3", ""), ("4", "id-3")):
            answer_to(it, holding, name, state=StateChange(before, name.encode()))
        _, answer = await it.link.next()
        answer.set_result([[1, 0, b"stale", -1]])
        await until(lambda: it.told)
        (_, results), *_ = it.told
        assert results is not None
        assert [(one.operation, one.outcome) for one in results] == [
            (Answer(EntryId("id-1"), track.scope_id, b"reply-1"), Outcome.DONE),
            (Answer(EntryId("id-2"), track.scope_id, b"reply-2"), Outcome.ALREADY),
            (
                Answer(EntryId("id-3"), track.scope_id, b"reply-3", StateChange("", b"3")),
                Outcome.STALE,
            ),
            (
                Answer(EntryId("id-4"), track.scope_id, b"reply-4", StateChange("id-3", b"4")),
                Outcome.VOID,
            ),
        ]


async def test_withdrawn_answers_come_back_one_by_one():
    async with desk() as it:
        holding = hold()
        track = answer_to(it, holding, "1", scope="a")
        _, answer = await it.link.next()
        put(it, holding, "2", scope="a")
        answer_to(it, holding, "3", "4", scope="a")
        answer_to(it, holding, "5", scope="b")
        taken = it.committer.withdraw(holding, track.scope_id)
        assert [one.entry_id for one in taken if isinstance(one, Answer | Commit)] == [
            "id-2", "id-3", "id-4",
        ]  # fmt: skip
        assert track.outstanding == 1
        answer_to(it, holding, "6", scope="a")
        answer.set_result([1])
        (call,), answer = await it.link.next()
        assert call.ids == ["id-5", "id-6"], "nothing is added to what was withdrawn"
        answer.set_result([2])
        await until(lambda: len(it.told) == 2)


async def test_answers_of_one_scope_are_bounded_and_calls_too():
    async with desk() as it:
        holding = hold()
        most = MOST_ARGUMENTS // 2
        answer_to(it, holding, *map(str, range(MAX_OPERATIONS + most + 1)))
        (call,), answer = await it.link.next()
        assert heads(call) == [("a", most)] * (MAX_OPERATIONS // most)
        answer.set_result([MAX_OPERATIONS])
        (call,), answer = await it.link.next()
        assert heads(call) == [("a", most), ("a", 1)]
        answer.set_result([most + 1])
        await until(lambda: len(it.told) == 2)


async def test_large_answers_do_not_make_a_call_too_large():
    async with desk() as it:
        holding = hold()
        track, half = holding.track(ScopeId("s")), bytes(MAX_BYTES // 2)
        for number in range(3):
            it.committer.answer(track, EntryId(f"id-{number}"), half)
        answer_to(it, holding, "small")
        it.committer.answer(track, EntryId("id-large"), half)
        state = StateChange("id-2", half)
        it.committer.answer(track, EntryId("id-3"), b"", state)
        it.committer.answer(track, EntryId("id-4"), b"", StateChange("id-3", b"small"))
        sent: list[list[str]] = []
        while len(it.told) < 5:
            (call,), answer = await it.link.next()
            sent.append(call.ids)
            answer.set_result([1 if len(call.ids) == 1 else 2])
            await until(lambda: len(it.told) == len(sent))
        assert sent == [
            ["id-0"], ["id-1"], ["id-2", "id-small"], ["id-large"],
            ["id-2", "id-3", "id-3", "id-4"],
        ]  # fmt: skip


async def test_answers_of_a_lost_partition_go_nowhere():
    async with desk() as it:
        holding, other = hold(0), hold(1)
        holding.is_lost = True
        it.committer.discard(holding)
        track = answer_to(it, holding, "1", "2")
        answer_to(it, other, "3")
        (call,), answer = await it.link.next()
        assert call.ids == ["id-3"]
        assert not track.outstanding
        answer.set_result([1])
        await until(lambda: it.told)


def test_answers_are_told_apart_as_they_were_put_in():
    run = Answers(ScopeId("s"), has_states=True, expected="0-9")
    run.add(EntryId("1-0"), b"a", b"A", 2)
    run.add(EntryId("2-0"), b"b", b"B", 2)
    assert run.arguments == ["1-0", b"a", b"A", "2-0", b"b", b"B"]
    assert run.entry_ids == ["1-0", "2-0"]
    assert run.each() == [
        Answer(EntryId("1-0"), ScopeId("s"), b"a", StateChange("0-9", b"A")),
        Answer(EntryId("2-0"), ScopeId("s"), b"b", StateChange("1-0", b"B")),
    ]
    assert run.is_before(StateChange("2-0", b"C"))
    assert not run.is_before(StateChange("1-0", b"C"))
    assert not run.is_before(None)
