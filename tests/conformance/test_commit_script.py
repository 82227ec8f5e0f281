"""The commit script, on every store: the guards that make effects exactly-once."""

from __future__ import annotations

import pytest

from tests.broker.neighbours import FATES, call_beside
from tests.broker.tenure import (
    ALREADY,
    DONE,
    KEPT,
    STALE,
    VOID,
    ZERO,
    change,
    commit,
    reply,
    tenure,
)
from wherry.broker.calls import Retention, read_answers, split_point
from wherry.broker.commits import Answer, Answers, Bury, Emit, Fail, Hold, Outcome, size_of
from wherry.broker.connect import Store
from wherry.errors import StoreError
from wherry.model import EntryId, ScopeId, Token

pytestmark = pytest.mark.without("acl", why="tests look at keys with the same link")

S = ScopeId("s")


async def test_commit_writes_replies_and_state_and_finishes_the_entry(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        written = commit(one, reply(1), reply(2), inbox="i", state=change("", b"st"), end="1.1")
        assert await held.call(written) == [DONE]
        expected = [
            {"m": reply(1), "i": one.encode(), "n": b"0", "s": b"s"},
            {"m": reply(2), "i": one.encode(), "n": b"1", "s": b"s", "z": b"2", "a": b"1.1"},
        ]
        assert await held.replies() == expected
        assert await held.inbox("i") == expected
        assert await held.state() == (b"st", one.encode())
        assert await held.entries() == []


async def test_answers_of_one_scope_that_share_a_call_are_each_its_own(store: Store):
    async with tenure(store) as held:
        ids = [await held.add(scope) for scope in ("s", "s", "t", "s")]
        operations = [
            Answer(entry_id, ScopeId(scope), reply(number))
            for number, (entry_id, scope) in enumerate(zip(ids, "ssts", strict=True))
        ]
        await held.call(commit(ids[1]))  # as if by another call: this one is there already
        answers = await held.call(*operations)
        assert answers == [DONE, ALREADY, DONE, VOID]
        assert await held.call(operations[3]) == [DONE]
        for scope, expected in (("s", (0, 3)), ("t", (2,))):
            assert await held.replies(scope) == [
                {"m": reply(n), "i": ids[n].encode(), "n": b"0", "s": scope.encode()}
                for n in expected
            ]


async def test_answers_with_states_that_follow_one_another_are_one_write(store: Store):
    async with tenure(store) as held:
        ids = [await held.add() for _ in range(4)]

        def run(*states: bytes) -> list[Answer]:
            befores = ["", *ids]
            return [
                Answer(one, S, reply(n), change(before, packed))
                for n, (one, before, packed) in enumerate(zip(ids, befores, states, strict=False))
            ]

        # The first is gone, as if another owner had finished it: what was built on it is void.
        await held.call(commit(ids[0]))
        assert await held.call(*run(b"a", b"b")) == [ALREADY, VOID]
        assert await held.state() == (None, None)
        behind = [
            Answer(ids[1], S, reply(1), change("", b"b")),
            Answer(ids[2], S, reply(2), change(ids[1], b"c")),
            Answer(ids[3], S, reply(3), change("9-9", b"d")),
        ]
        assert await held.call(*behind) == [DONE, DONE, STALE]
        assert await held.state() == (b"c", ids[2].encode())
        assert [one["i"].decode() for one in await held.replies()] == ids[1:3]
        # Sent again with one more that was not sent before.
        again = [*behind[:2], Answer(ids[3], S, reply(3), change(ids[2], b"d"))]
        assert await held.call(*again, is_resent=True) == [ALREADY, ALREADY, DONE]
        assert await held.state() == (b"d", ids[3].encode())
        assert [one["i"].decode() for one in await held.replies()] == ids[1:]


async def test_end_mark_without_replies_carries_no_message(store: Store):
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        answers = await held.call(commit(one, end="1.1"), commit(two, end="1.2", first=3))
        assert answers == [DONE, DONE]
        assert await held.replies() == [
            {"i": one.encode(), "n": b"0", "s": b"s", "z": b"0", "a": b"1.1"},
            {"i": two.encode(), "n": b"3", "s": b"s", "z": b"3", "a": b"1.2"},
        ]


async def test_replies_of_an_operation_have_its_headers_and_no_others(store: Store):
    async with tenure(store) as held:
        one, two, three, four = [await held.add() for _ in range(4)]
        operations = (
            commit(one, reply(1), reply(2), inbox="i", end="1.1", headers=b"1"),
            Answer(two, S, reply(3)),
            Emit(1, three, S, [reply(4)], headers=b"2"),
            Hold(three, S, b"row", "held", headers=b"3"),
            Bury(three, S, "dead", headers=b"4"),
            commit(four, end="1.2", headers=b"5"),
            Bury(four, S, "gone already", headers=b"6"),
        )
        assert await held.call(*operations) == [DONE] * 6 + [ALREADY]
        headers = [one.get("h") for one in await held.replies()]
        assert headers == [b"1", b"1", None, b"2", b"3", b"4", b"5"]
        assert [one.get("h") for one in await held.inbox("i")] == [b"1", b"1"]


async def test_without_an_end_mark_and_replies_nothing_is_written(store: Store):
    async with tenure(store) as held:
        assert await held.call(commit(await held.add(), inbox="i")) == [DONE]
        assert await held.replies() == []
        assert await held.inbox("i") == []


async def test_commit_with_another_token_changes_nothing(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        before = await held.everything()
        for token in ("", "1:other", held.token + "0", held.token.partition(":")[0]):
            for operation in (
                commit(one, reply(1), state=change("", b"st")),
                Emit(1, one, S, [reply(1)]),
                Fail(one, S, b"row"),
                Bury(one, S, "reason"),
            ):
                assert await held.call(operation, token=Token(token)) is None
        assert await held.everything() == before


async def test_fence_compares_for_equality_and_not_by_epoch(store: Store):
    """After a split brain two owners can hold the same epoch, and a higher one proves nothing."""
    async with tenure(store) as held:
        one = await held.add()
        epoch, _, nonce = held.token.partition(":")
        for token in (f"{epoch}:{'0' * len(nonce)}", f"{int(epoch) + 1}:{nonce}"):
            assert await held.call(commit(one), token=Token(token)) is None
        assert await held.entries() == [one]


async def test_owner_writes_though_its_lease_ran_out(store: Store):
    """Expiry permits taking over; only the token permits writing."""
    async with tenure(store) as held:
        await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        assert await held.call(commit(await held.add(), reply(1))) == [DONE]
        assert len(await held.replies()) == 1


async def test_a_lease_that_is_gone_fences(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        await held.link.call("DEL", held.keys.lease(ZERO))
        assert await held.call(commit(one, reply(1))) is None
        assert await held.call(commit(one, reply(1)), token=Token("")) is None
        assert await held.entries() == [one]


async def test_finished_entry_is_not_answered_again(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        operation = commit(one, reply(1), state=change("", b"st"), end="1.1")
        assert await held.call(operation) == [DONE]
        before = await held.everything()
        assert await held.call(operation) == [ALREADY]
        assert await held.call(operation, is_resent=True) == [ALREADY]
        assert await held.everything() == before


async def test_resent_call_carries_out_only_what_was_not(store: Store):
    """A call is carried out whole or not at all, but the worker cannot know which."""
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        first = commit(one, reply(1), state=change("", b"a"))
        second = commit(two, reply(2), state=change(one, b"b"))
        assert await held.call(first) == [DONE]
        assert await held.call(first, second, is_resent=True) == [ALREADY, DONE]
        assert [one["n"] for one in await held.replies()] == [b"0", b"0"]
        assert await held.state() == (b"b", two.encode())


@pytest.mark.parametrize("kind", ["out", "inbox", "state"])
async def test_resent_commit_was_done_whatever_became_of_its_keys(store: Store, kind: str):
    async with tenure(store) as held:
        operation = commit(await held.add(), reply(1), inbox="i", state=change("", b"st"))
        assert await held.call(operation) == [DONE]
        key = {
            "out": held.keys.replies(ZERO, "s"),
            "inbox": held.keys.inbox(ZERO, "i"),
            "state": held.keys.state(ZERO, "s"),
        }[kind]
        await held.link.call("DEL", key)
        await held.link.call("SET", key, "mine")
        assert await held.call(operation, is_resent=True) == [ALREADY]


async def test_entry_that_somebody_else_finished_voids_what_follows_in_its_scope(store: Store):
    async with tenure(store) as held:
        one, two, other = await held.add(), await held.add(), await held.add("other")
        await held.link.call("XDEL", held.keys.entries(ZERO), one)
        answers = await held.call(
            commit(one, reply(1)), commit(two, reply(2)), commit(other, reply(3), scope="other")
        )
        assert answers == [ALREADY, VOID, DONE]
        assert await held.replies() == []
        assert len(await held.replies("other")) == 1
        assert await held.entries() == [two]


async def test_each_result_that_is_not_done_voids_all_kinds_of_operations(store: Store):
    async with tenure(store) as held:
        one, two, three, four = [await held.add() for _ in range(4)]
        await held.link.call("HSET", held.keys.state(ZERO, "s"), "v", "9-9", "state", "x")
        before = await held.everything()
        answers = await held.call(
            commit(one, reply(1), state=change("", b"st")),
            Emit(1, two, S, [reply(2)], attempt="1.1"),
            commit(two, reply(2), state=change(one, b"st")),
            Fail(three, S, b"row"),
            Bury(four, S, "reason"),
        )
        assert answers == [STALE, VOID, VOID, VOID, VOID]
        assert await held.everything() == before


@pytest.mark.parametrize("kind", ["out", "inbox", "state"])
async def test_commit_onto_a_key_of_the_wrong_type_writes_nothing(store: Store, kind: str):
    """A script that fails half-way is not rolled back: an XDEL before the error loses the entry."""
    async with tenure(store) as held:
        one, two, other = await held.add(), await held.add(), await held.add("other")
        key = {
            "out": held.keys.replies(ZERO, "s"),
            "inbox": held.keys.inbox(ZERO, "i"),
            "state": held.keys.state(ZERO, "s"),
        }[kind]
        await held.link.call("SET", key, "mine")
        answers = await held.call(
            commit(one, reply(1), inbox="i", state=change("", b"st")),
            commit(two, reply(2), inbox="i", state=change(one, b"st")),
            commit(other, reply(3), scope="other"),
        )
        assert answers is not None
        outcome, reason = answers[0]
        assert outcome is Outcome.BAD
        assert key in reason
        assert answers[1:] == [VOID, DONE]
        assert await held.entries() == [one, two]
        assert await held.link.call("GET", key) == b"mine"
        if kind != "out":
            assert await held.replies() == []
        if kind != "inbox":
            assert await held.inbox("i") == []
        if kind != "state":
            assert await held.state() == (None, None)


@pytest.mark.parametrize("kind", ["entries", "attempts", "dead"])
async def test_a_damaged_partition_refuses_the_whole_call(store: Store, kind: str):
    async with tenure(store) as held:
        one = await held.add()
        key = getattr(held.keys, kind)(ZERO)
        await held.link.call("SET", key, "mine")
        before = await held.everything()
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await held.call(
                Emit(1, "", S, [reply(0)]), Bury(EntryId("1-1"), S, "gone"), commit(one, reply(1))
            )
        assert await held.everything() == before


async def test_dead_letters_that_were_overwritten_stop_burials_alone(store: Store):
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        await held.link.call("SET", held.keys.dead(ZERO), "mine")
        expired = Bury(two, S, "Expired", is_kept=False)
        assert await held.call(commit(one, reply(1)), expired) == [DONE, DONE]
        assert await held.entries() == []


async def test_state_of_another_version_is_stale(store: Store):
    """Redis went back in time under a living instance."""
    async with tenure(store) as held:
        one, two, three = [await held.add() for _ in range(3)]
        key = held.keys.state(ZERO, "s")
        assert await held.call(commit(one, state=change("", b"a"))) == [DONE]
        await held.link.call("HSET", key, "v", "1-1", "state", "old")
        before = await held.everything()
        assert await held.call(commit(two, reply(1), state=change(one, b"b"))) == [STALE]
        assert await held.call(commit(two, reply(1), state=change(one, None))) == [STALE]
        await held.link.call("DEL", key)
        assert await held.call(commit(two, reply(1), state=change(one, b"b"))) == [STALE]
        await held.link.call("HSET", key, "v", "1-1", "state", "old")
        assert await held.everything() == before
        assert await held.call(commit(three, state=change("1-1", b"c"))) == [DONE]


async def test_state_is_set_kept_and_deleted(store: Store):
    async with tenure(store) as held:
        one, two, three, four = [await held.add() for _ in range(4)]
        assert await held.call(commit(one, state=change("", b"a"))) == [DONE]
        assert await held.call(commit(two, state=change(one, None))) == [DONE]
        assert await held.state() == (b"a", one.encode())
        assert await held.call(commit(three, state=change(one, b""))) == [DONE]
        assert await held.link.call("EXISTS", held.keys.state(ZERO, "s")) == 0
        assert await held.call(commit(four, state=change("", b"b"))) == [DONE]
        assert await held.state() == (b"b", four.encode())


async def test_commits_of_a_scope_build_on_one_another_within_a_call(store: Store):
    async with tenure(store) as held:
        ids = [await held.add() for _ in range(3)]
        answers = await held.call(
            commit(ids[0], state=change("", b"a")),
            commit(ids[1], state=change(ids[0], b"")),
            commit(ids[2], state=change("", b"c")),
        )
        assert answers == [DONE] * 3
        assert await held.state() == (b"c", ids[2].encode())


async def test_reply_keys_are_bounded_in_length_and_time(store: Store):
    async with tenure(store) as held:
        kept = Retention(reply_length=10, reply_ttl_ms=30_000, state_ttl_ms=40_000)
        ids = [await held.add() for _ in range(4)]
        await held.call(
            *(commit(one, *[reply(n) for n in range(100)], inbox="i") for one in ids[:2]),
            Emit(1, ids[2], S, [reply(1)], "j", "1.1"),
            Bury(ids[3], ScopeId("gone"), "reason", inbox="k"),
            retention=kept,
        )
        out, inbox = held.keys.replies(ZERO, "s"), held.keys.inbox(ZERO, "i")
        assert await held.link.call("XLEN", out) < 201
        assert await held.link.call("XLEN", inbox) == 200, "an inbox is never trimmed by a worker"
        written = [out, inbox, held.keys.inbox(ZERO, "j"), held.keys.inbox(ZERO, "k")]
        for key in (*written, held.keys.replies(ZERO, "gone")):
            assert 0 < await held.link.call("PTTL", key) <= 30_000, key


async def test_state_may_have_a_time_to_live(store: Store):
    async with tenure(store) as held:
        kept = Retention(reply_length=10, reply_ttl_ms=30_000, state_ttl_ms=40_000)
        one, two = await held.add(), await held.add()
        key = held.keys.state(ZERO, "s")
        await held.call(commit(one, state=change("", b"a")), retention=kept)
        assert 0 < await held.link.call("PTTL", key) <= 40_000
        await held.link.call("PERSIST", key)
        await held.call(commit(two, state=change(one, None)), retention=kept)
        assert 0 < await held.link.call("PTTL", key) <= 40_000


async def test_state_loses_its_time_to_live_when_states_are_kept_for_ever(store: Store):
    """The setting was changed: what is written from now on must not expire by the old one."""
    async with tenure(store) as held:
        kept = Retention(reply_length=10, reply_ttl_ms=30_000, state_ttl_ms=40_000)
        one, two = await held.add(), await held.add()
        await held.call(commit(one, state=change("", b"a")), retention=kept)
        assert await held.call(commit(two, state=change(one, b"b")), retention=KEPT) == [DONE]
        assert await held.link.call("PTTL", held.keys.state(ZERO, "s")) == -1


async def test_lease_that_has_forgotten_an_emit_fences_its_owner(store: Store):
    """Redis went back in time: the first words of an answer are gone, and its end must not come."""
    async with tenure(store) as held:
        one = await held.add()
        assert await held.call(Emit(1, one, S, [reply(1)], "", "1.1")) == [DONE]
        assert await held.call(Emit(2, one, S, [reply(2)], "", "1.1", 1), emitted=1) == [DONE]
        await held.link.call("HSET", held.keys.lease(ZERO), "emit", 1)
        before = await held.everything()
        assert await held.call(commit(one, reply(3), end="1.1", first=2), emitted=2) is None
        assert await held.everything() == before
        assert await held.call(commit(one, reply(3), end="1.1", first=2), emitted=1) == [DONE]


async def test_answer_to_an_entry_that_is_gone_is_not_begun(store: Store):
    """It would never end: no commit of that entry is done any more."""
    async with tenure(store) as held:
        one, other = await held.add(), await held.add("t")
        await held.link.call("XDEL", held.keys.entries(ZERO), one)
        answers = await held.call(
            Emit(1, one, S, [reply(1)], "", "1.1"),
            Emit(2, "", S, [reply(2)]),
            commit(other, reply(3), scope="t"),
        )
        assert answers == [VOID, VOID, DONE]
        assert await held.replies() == []


async def test_emit_is_applied_once_for_its_number(store: Store):
    """A resent emit does nothing: its entry is still there and cannot tell."""
    async with tenure(store) as held:
        one = await held.add()
        first = Emit(1, one, S, [reply(1), reply(2)], "i", "1.1")
        assert await held.call(first) == [DONE]
        assert await held.call(first, is_resent=True) == [ALREADY]
        assert await held.call(first) == [ALREADY]
        assert await held.call(Emit(2, one, S, [reply(3)], "i", "1.1", 2)) == [DONE]
        expected = [
            {"m": reply(n + 1), "i": one.encode(), "n": b"%d" % n, "s": b"s", "a": b"1.1"}
            for n in range(3)
        ]
        assert await held.replies() == expected
        assert await held.inbox("i") == expected
        assert await held.entries() == [one]


async def test_emit_numbers_begin_anew_with_each_tenure(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        assert await held.call(Emit(7, one, S, [reply(1)], "", "1.1")) == [DONE]
        await held.claim()
        assert await held.call(Emit(1, one, S, [reply(1)], "", "2.1")) == [DONE]
        assert [one["a"] for one in await held.replies()] == [b"1.1", b"2.1"]


async def test_send_outside_any_message_has_no_cause(store: Store):
    async with tenure(store) as held:
        assert await held.call(Emit(1, "", S, [reply(1)])) == [DONE]
        assert await held.replies() == [{"m": reply(1), "n": b"0", "s": b"s"}]


async def test_emit_onto_a_key_of_the_wrong_type_uses_up_no_number(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        key = held.keys.replies(ZERO, "s")
        await held.link.call("SET", key, "mine")
        before = await held.everything()
        answers = await held.call(Emit(1, one, S, [reply(1)], "i", "1.1"), commit(one, reply(2)))
        assert answers is not None
        assert [outcome for outcome, _ in answers] == [Outcome.BAD, Outcome.VOID]
        assert await held.everything() == before


async def test_failed_attempt_is_written_down_while_the_entry_exists(store: Store):
    """A late row for an entry that is gone would stay for ever."""
    async with tenure(store) as held:
        one = await held.add()
        key = held.keys.attempts(ZERO)
        assert await held.call(Fail(one, S, b"row 1")) == [DONE]
        assert await held.call(Fail(one, S, b"row 1"), is_resent=True) == [DONE]
        assert await held.link.call("HGETALL", key) == [one.encode(), b"row 1"]
        assert await held.call(Fail(one, S, b"row 2")) == [DONE]
        assert await held.link.call("HGETALL", key) == [one.encode(), b"row 2"]
        assert await held.call(commit(one)) == [DONE]
        assert await held.call(Fail(one, S, b"row 3")) == [ALREADY]
        assert await held.link.call("EXISTS", key) == 0


async def test_attempt_that_failed_and_succeeded_in_one_call_leaves_no_row(store: Store):
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        answers = await held.call(
            Fail(one, S, b"row"), commit(one), Fail(two, S, b"row"), Bury(two, S, "reason")
        )
        assert answers == [DONE] * 4
        assert await held.link.call("EXISTS", held.keys.attempts(ZERO)) == 0


async def test_buried_entry_moves_whole_to_the_dead_letters(store: Store):
    async with tenure(store) as held:
        one = await held.add("s", "h", "headers", "odd", "field")
        await held.call(Fail(one, S, b"row"))
        bury = Bury(one, S, "ValueError: no", "trace", 5, "i", 2)
        assert await held.call(bury) == [DONE]
        (letter,) = await held.dead()
        assert int(letter.pop("when")) > 1_000_000_000_000
        assert letter == {
            "id": one.encode(),
            "error": b"ValueError: no",
            "traceback": b"trace",
            "attempts": b"5",
            "s": b"s",
            "m": b"\x80",
            "h": b"headers",
            "odd": b"field",
        }
        told = [{"i": one.encode(), "n": b"2", "s": b"s", "e": b"ValueError: no"}]
        assert await held.replies() == told
        assert await held.inbox("i") == told
        assert await held.entries() == []
        assert await held.link.call("EXISTS", held.keys.attempts(ZERO)) == 0
        assert await held.call(bury, is_resent=True) == [ALREADY]
        assert len(await held.dead()) == 1
        assert await held.replies() == told


async def test_expired_entry_is_told_of_and_not_kept(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        assert await held.call(Bury(one, S, "Expired: late", is_kept=False)) == [DONE]
        assert await held.dead() == []
        assert [one["e"] for one in await held.replies()] == [b"Expired: late"]


async def test_burial_skips_reply_keys_that_cannot_be_used(store: Store):
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        await held.link.call("SET", held.keys.replies(ZERO, "s"), "mine")
        assert await held.call(Bury(one, S, "reason", inbox="i")) == [DONE]
        assert [one["e"] for one in await held.inbox("i")] == [b"reason"]
        await held.link.call("DEL", held.keys.replies(ZERO, "s"))
        await held.link.call("SET", held.keys.inbox(ZERO, "j"), "mine")
        assert await held.call(Bury(two, S, "reason", inbox="j")) == [DONE]
        assert len(await held.replies()) == 1
        assert len(await held.dead()) == 2


async def test_burial_without_a_scope_id_is_told_to_the_inbox_alone(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        assert await held.call(Bury(one, ScopeId(""), "Malformed", inbox="i")) == [DONE]
        assert len(await held.inbox("i")) == 1
        assert len(await held.dead()) == 1


async def test_entry_of_very_many_fields_can_be_buried(store: Store):
    async with tenure(store) as held:
        one = await held.add("s", *[f"f{n}" for n in range(9_000)])
        assert await held.call(Bury(one, S, "reason")) == [DONE]
        (letter,) = await held.dead()
        assert letter["s"] == b"s"
        assert await held.entries() == []


async def test_largest_call_is_carried_out(store: Store):
    async with tenure(store) as held:
        ids = [await held.add(f"s{n}") for n in range(128)]
        operations = [
            commit(one, *[reply(n) for n in range(15)], scope=f"s{n}") for n, one in enumerate(ids)
        ]
        assert await held.call(*operations) == [DONE] * 128
        assert await held.entries() == []
        many = await held.add()
        assert await held.call(commit(many, *[reply(1)] * 20_000)) == [DONE]


def test_calls_are_split_by_operations_replies_and_bytes():
    def first(*sizes: tuple[int, int, int]) -> tuple[int, int]:
        """Operations: how many, of how many replies, of how many bytes."""
        fitting, count, size = split_point(
            commit(EntryId("1-1"), size_bytes=size_of([b""] * replies, size))
            for count, replies, size in sizes
            for _ in range(count)
        )
        assert fitting == count
        return count, size

    empty = size_of([], 0)
    assert first((1, 9_999, 2**30)) == (1, size_of([b""] * 9_999, 2**30)), "a large one goes alone"
    assert first((300, 0, 0)) == (128, 128 * empty)
    assert first((100, 100, 0)) == (20, 20 * size_of([b""] * 100, 0))
    assert first((100, 0, 2**18)) == (3, 3 * size_of([], 2**18))
    assert first((3, 1, 1)) == (3, 3 * size_of([b""], 1))
    assert first((1, 0, 0), (1, 0, 2**30)) == (1, empty)

    def run_of(count: int, reply: bytes) -> Answers:
        run = Answers(S)
        for _ in range(count):
            run.add(EntryId("1-1"), reply, None, len(reply))
        return run

    run = run_of(50, b"four")
    assert split_point([run] * 3) == (2, 100, 100 * size_of([b"four"], 4))
    assert split_point([run] * 2 + [commit(EntryId("1-1"))] * 29)[:2] == (30, 128)
    assert split_point([run_of(200, b"")] * 2)[:2] == (1, 200)


def test_answers_are_read():
    assert read_answers(b"FENCED") is None
    assert read_answers([1, 0, -1, b"stale", b"bad:why"]) == [
        DONE,
        ALREADY,
        VOID,
        STALE,
        (Outcome.BAD, "why"),
    ]


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.without("cluster", why="partitions of several slots do not share a call")
async def test_partitions_that_share_a_call_do_not_share_their_fate(store: Store, fate: str):
    """The neighbours are looked at by `call_beside`; here half of the call was carried out."""
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        operations = [commit(one, reply(1)), Answer(two, S, reply(2))]
        await held.call(operations[0])
        for expected in ([ALREADY, DONE], [ALREADY, ALREADY]):
            await held.link.call("SCRIPT", "FLUSH")
            answers = await call_beside(
                held, operations, fate, token=held.token, is_resent=True, retention=KEPT
            )
            assert answers == expected
        assert [one["m"] for one in await held.replies()] == [reply(1), reply(2)]
        fenced = Token("1:other")
        before = await held.everything()
        answers = await call_beside(
            held, operations, fate, token=fenced, is_resent=False, retention=KEPT
        )
        assert answers is None
        assert await held.everything() == before


async def test_nothing_but_documented_keys_lives_for_ever(store: Store):
    async with tenure(store) as held:
        one, two, three = [await held.add() for _ in range(3)]
        await held.call(
            commit(one, reply(1), inbox="i", state=change("", b"st")),
            Emit(1, two, S, [reply(1)], "i", "1.1"),
            Fail(three, S, b"row"),
            retention=KEPT,
        )
        lasting = {
            key.decode().rpartition(":")[0] + ":" + key.decode().rpartition(":")[2]
            for key in await held.names()
            if await held.link.call("PTTL", key) == -1
        }
        assert lasting == {
            held.keys.entries(ZERO),
            held.keys.lease(ZERO),
            held.keys.attempts(ZERO),
            held.keys.state(ZERO, "s"),
        }
