"""Dead letters replayed and held entries released, on every store."""

from __future__ import annotations

import pytest

from tests.broker.tenure import ALREADY, DONE, VOID, ZERO, Tenure, change, tenure
from wherry.broker import deadletters
from wherry.broker.attempts import pack_row, read_row
from wherry.broker.commits import Bury, Commit, Fail, Hold
from wherry.broker.connect import Store
from wherry.model import ORIGIN, AttemptsRow, EntryId, ScopeId

pytestmark = pytest.mark.without("acl", why="tests look at keys with the same link")

S = ScopeId("s")
HELD = AttemptsRow(attempts=5, error="ValueError: no", is_held=True)


async def bury(held: Tenure, *fields: str, scope: str = "s") -> EntryId:
    entry_id = await held.add(scope, *fields)
    assert await held.call(Bury(entry_id, ScopeId(scope), "E: no", "trace", 5)) == [DONE]
    return entry_id


async def letter_ids(held: Tenure) -> list[str]:
    letters = await deadletters.read_letters(held.link, held.keys, ZERO, after="0-0", count=100)
    return [one.letter_id for one in letters]


async def replay(held: Tenure, *ids: str, backlog: int = 100) -> list[str | None]:
    script = held.scripts.replay
    return await deadletters.replay_letters(
        held.link, script, held.keys, ZERO, ids, backlog=backlog
    )


async def test_letter_tells_everything_of_the_entry(store: Store):
    async with tenure(store) as held:
        fields = ("h", "\x81\xa1a\x01", "w", "1", "x", "99", "r", "box", "k", "id", "odd", "1")
        entry_id = await bury(held, *fields)
        (letter,) = await deadletters.read_letters(held.link, held.keys, ZERO, after="0-0", count=9)
        assert (letter.entry_id, letter.scope_id, letter.attempts) == (entry_id, "s", 5)
        assert (letter.error, letter.traceback) == ("E: no", "trace")
        assert letter.message is None, "an empty map has no type"
        assert letter.died_unix_ms > 0
        assert {"s", "m", "h", "w", "x", "r", "k", "odd"} == set(letter.fields)
        found = await deadletters.get_letter(held.link, held.keys, ZERO, letter.letter_id)
        assert found == letter
        assert await deadletters.get_letter(held.link, held.keys, ZERO, "1-1") is None


async def test_replayed_letters_go_behind_what_waits_in_their_order(store: Store):
    async with tenure(store) as held:
        first, second = await bury(held, "r", "box", "x", "9", "k", "id"), await bury(held)
        waiting = await held.add()
        one, two = await replay(held, *await letter_ids(held))
        assert await held.entries() == [waiting, one, two]
        assert await held.dead() == []
        _, again, last = await held.stream(held.keys.entries(ZERO))
        assert again == {"o": first.encode(), "s": b"s", "m": b"\x80", "k": b"id"}
        assert last["o"] == second.encode()


async def test_replay_that_is_sent_again_appends_nothing(store: Store):
    async with tenure(store) as held:
        await bury(held)
        ids = await letter_ids(held)
        (one,) = await replay(held, *ids)
        assert await replay(held, *ids, "1-1") == ["", ""]
        assert await held.entries() == [one]


async def test_letter_that_died_again_keeps_its_first_id(store: Store):
    async with tenure(store) as held:
        first = await bury(held)
        (one,) = await replay(held, *await letter_ids(held))
        assert one is not None
        await held.call(Bury(EntryId(one), S, "E: no", "", 5))
        await replay(held, *await letter_ids(held))
        (entry,) = await held.stream(held.keys.entries(ZERO))
        assert entry["o"] == first.encode()


async def test_without_room_nothing_is_lost(store: Store):
    async with tenure(store) as held:
        for _ in range(3):
            await bury(held)
        one, *rest = await replay(held, *await letter_ids(held), backlog=1)
        assert rest == [None, None]
        assert await held.entries() == [one]
        assert len(await held.dead()) == 2


async def test_malformed_letter_is_replayed_as_it_was(store: Store):
    async with tenure(store) as held:
        key = held.keys.entries(ZERO)
        entry_id = EntryId((await held.link.call("XADD", key, "*", "what", "ever")).decode())
        await held.call(Bury(entry_id, ScopeId(""), "Malformed: no scope id"))
        (letter,) = await deadletters.read_letters(held.link, held.keys, ZERO, after="0-0", count=9)
        assert (letter.scope_id, letter.message) == ("", None)
        await replay(held, letter.letter_id)
        assert await held.stream(key) == [{"o": entry_id.encode(), "what": b"ever"}]


async def test_hold_keeps_the_entry_and_tells_who_waits_once(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        hold = Hold(one, S, pack_row(HELD), "Held: no", "box", 2, "1.3")
        assert await held.call(hold) == [DONE]
        assert await held.call(hold, is_resent=True) == [ALREADY]
        assert await held.entries() == [one]
        told = {"i": one.encode(), "n": b"2", "s": b"s", "a": b"1.3", "e": b"Held: no"}
        assert await held.replies() == [told]
        assert await held.inbox("box") == [told]
        (found,) = await deadletters.read_held(held.link, held.keys, ZERO, after=ORIGIN, count=10)
        assert (found.entry_id, found.scope_id, found.attempts) == (one, "s", 5)


async def test_failure_and_hold_sent_again_in_one_call_are_told_once(store: Store):
    """Both wait for an answer when Redis was away for longer than the pause between attempts."""
    async with tenure(store) as held:
        one = await held.add()
        call = Fail(one, S, b"fourth"), Hold(one, S, pack_row(HELD), "Held: no")
        assert await held.call(*call) == [DONE, DONE]
        before = await held.everything()
        assert await held.call(*call, is_resent=True) == [DONE, ALREADY]
        assert await held.everything() == before


async def test_hold_of_what_is_gone_writes_nothing(store: Store):
    async with tenure(store) as held:
        one, two = await held.add(), await held.add()
        hold = Hold(two, S, pack_row(HELD), "Held: no")
        stale = Commit(one, S, [], state=change("other", b"x"))
        answers = await held.call(stale, hold)
        assert answers is not None
        assert answers[1] == VOID
        await held.call(Commit(two, S, []))
        before = await held.everything()
        assert await held.call(hold) == [ALREADY]
        assert await held.everything() == before


async def test_hold_passes_over_a_reply_key_of_the_wrong_type(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        await held.link.call("SET", held.keys.replies(ZERO, "s"), "mine")
        assert await held.call(Hold(one, S, pack_row(HELD), "Held: no", "box")) == [DONE]
        assert len(await held.inbox("box")) == 1


@pytest.mark.parametrize("drops", [False, True])
async def test_held_entry_is_released_once(store: Store, drops: bool):
    async with tenure(store) as held:
        one = await held.add()
        await held.call(Hold(one, S, pack_row(HELD), "Held: no"))

        async def release() -> bool:
            script = held.scripts.unhold
            return await deadletters.release_held(
                held.link, script, held.keys, ZERO, one, drops=drops
            )

        assert await release()
        assert not await release()
        assert await held.entries() == ([] if drops else [one])
        assert await held.link.call("EXISTS", held.keys.attempts(ZERO)) == 0


async def test_only_what_is_held_is_released(store: Store):
    async with tenure(store) as held:
        one = await held.add()
        await held.call(Fail(one, S, pack_row(HELD._replace(is_held=False))))
        before = await held.everything()
        script = held.scripts.unhold
        for entry_id in (one, "1-1"):
            assert not await deadletters.release_held(
                held.link, script, held.keys, ZERO, entry_id, drops=True
            )
        # Retried and held again meanwhile: it is not the one that was looked at.
        other = (one, "1", pack_row(HELD), held.keys.released)
        names = (held.keys.entries(ZERO), held.keys.attempts(ZERO))
        assert await script.run(held.link, names, other) == 0
        assert await held.everything() == before


@pytest.mark.parametrize(
    "row",
    [AttemptsRow(), HELD, AttemptsRow(2, 3, "E", 4, "1:x"), AttemptsRow(error="\ud7ff")],
)
def test_row_survives_the_wire(row: AttemptsRow):
    assert read_row(pack_row(row)) == row


@pytest.mark.parametrize("packed", [b"", b"row", b"\x80", b"\xc0", b"\x93\x01\x02\x03"])
def test_what_is_no_row_is_none(packed: bytes):
    assert read_row(packed) is None
