"""A few answers of different scopes are parts of a call of their own, on every store.

They are told apart by nothing that an owner sees: what each is answered, and what is written, is
what it would be in a list of operations.
"""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.broker.tenure import ALREADY, DONE, KEPT, VOID, ZERO, Tenure, reply, tenure
from wherry.broker.calls import MOST_LOOSE, Call, encode_calls
from wherry.broker.commits import LARGE_BYTES, Answers, Outcome
from wherry.broker.connect import Store
from wherry.broker.scripts import Scripts
from wherry.broker.wire import Keys
from wherry.errors import StoreError
from wherry.model import EntryId, Partition, ScopeId, Token

pytestmark = [
    pytest.mark.without("acl", why="tests look at keys with the same link"),
    pytest.mark.without("cluster", why="partitions of several slots do not share a call"),
]

_LAST_ID = "18446744073709551615-18446744073709551615"
_OTHER = Partition(1)


def _lone(scope: str, entry_id: EntryId, message: bytes) -> Answers:
    run = Answers(ScopeId(scope))
    run.add(entry_id, message, None, len(message))
    return run


async def _call(
    held: Tenure, scopes: str, aging: Collection[ScopeId] | None = None
) -> tuple[dict[str, EntryId], Call, Call]:
    """Entries of these scopes, the call that answers each, and one of another partition."""
    ids = {scope: await held.add(scope) for scope in scopes}
    steps = [_lone(scope, one, reply(at)) for at, (scope, one) in enumerate(ids.items())]
    mine = Call(ZERO, held.token, steps, has_failures=False, aging=aging)
    await held.link.call("HSET", held.keys.of_owner(_OTHER)[1], "token", "1:other")
    entry_id = await held.add("x", partition=_OTHER)
    other = Call(_OTHER, Token("1:other"), [_lone("x", entry_id, b"x")], has_failures=False)
    return ids, mine, other


async def _written(held: Tenure, scopes: str) -> str:
    """Those of the scopes that have a reply, which is theirs."""
    found = ""
    for at, scope in enumerate(scopes):
        replies = [one for one in await held.replies(scope) if one["m"] != b"last"]
        assert [(one["m"], one["s"]) for one in replies] in ([], [(reply(at), scope.encode())])
        found += scope * len(replies)
    return found


async def test_all_are_carried_out(store: Store):
    async with tenure(store) as held:
        _, mine, other = await _call(held, "abc")
        assert await held.joint(mine, other) == [[DONE] * 3, [DONE]]
        assert await _written(held, "abc") == "abc"
        assert await held.entries() == []


async def test_one_whose_entry_is_gone_is_told_alone(store: Store):
    async with tenure(store) as held:
        ids, mine, other = await _call(held, "abc")
        await held.link.call("XDEL", held.keys.entries(ZERO), ids["b"])
        assert await held.joint(other, mine) == [[DONE], [DONE, ALREADY, DONE]]
        assert await _written(held, "abc") == "ac"


async def test_one_that_cannot_be_written_is_told_alone(store: Store):
    async with tenure(store) as held:
        ids, mine, other = await _call(held, "abc")
        key = held.keys.replies(ZERO, "a")
        await held.link.call("SET", key, "mine")
        bad = (Outcome.BAD, f"reply key {key} is no stream")
        assert await held.joint(mine, other) == [[bad, DONE, DONE], [DONE]]
        assert await held.entries() == [ids["a"]]


async def test_a_lost_lease_fences_all(store: Store):
    async with tenure(store) as held:
        ids, mine, other = await _call(held, "abc")
        mine.token = Token("1:before")
        assert await held.joint(mine, other) == [None, [DONE]]
        assert await _written(held, "abc") == ""
        assert await held.entries() == list(ids.values())


async def test_an_error_of_one_is_that_of_its_partition(store: Store):
    """As in a list of operations; a stream whose last id is the greatest takes no more."""
    async with tenure(store) as held:
        _, mine, other = await _call(held, "abc")
        await held.link.call("XADD", held.keys.replies(ZERO, "b"), _LAST_ID, "m", "last")
        answer, beside = await held.joint(mine, other)
        assert isinstance(answer, StoreError)
        assert beside == [DONE]


async def test_each_has_its_time_to_live(store: Store):
    """Those that are young keep theirs, unless their stream is new."""
    async with tenure(store) as held:
        for scope in "ab":
            await held.link.call("XADD", held.keys.replies(ZERO, scope), "*", "m", "last")
            await held.link.call("PEXPIRE", held.keys.replies(ZERO, scope), 1_000)
        _, mine, other = await _call(held, "abc", aging=(ScopeId("b"),))
        assert await held.joint(mine, other) == [[DONE] * 3, [DONE]]
        left_ms = [await held.link.call("PTTL", held.keys.replies(ZERO, one)) for one in "abc"]
        assert 0 < left_ms[0] <= 1_000 < left_ms[1] <= KEPT.reply_ttl_ms
        assert 1_000 < left_ms[2] <= KEPT.reply_ttl_ms


async def test_what_has_a_say_in_another_stays_in_a_list(store: Store):
    """Of one scope, the second is void if the first is not done; so they are when sent again."""
    async with tenure(store) as held:
        ids, mine, other = await _call(held, "ab")
        large = b"x" * (LARGE_BYTES + 1)
        mine.steps = [_lone("a", ids["a"], large), _lone("a", ids["b"], reply(1))]
        await held.link.call("XDEL", held.keys.entries(ZERO), ids["a"])
        assert await held.joint(mine, other) == [[ALREADY, VOID], [DONE]]
        assert await held.entries() == [ids["b"]]


def _kinds(call: Call, *others: Call) -> list[str]:
    """Letters of the call's parts: as a list of operations, or loose."""
    command = encode_calls(Scripts().commit, Keys("n"), [call, *others], KEPT)
    arguments = command[3 + int(command[2]) :][4:]
    return [str(one) for one in arguments if one in ("m", "o", "O")]


def test_only_a_few_and_only_plain_ones_are_loose():
    def of(count: int, **more: object) -> Call:
        steps = [_lone(f"s{n}", EntryId(f"1-{n}"), b"r") for n in range(count)]
        return Call(ZERO, Token("1:a"), steps, **{"has_failures": False, "aging": ()} | more)  # type: ignore[arg-type]

    other = of(1)
    assert _kinds(of(1), other) == ["O", "O"]
    assert _kinds(of(MOST_LOOSE), other) == ["O"] * (MOST_LOOSE + 1)
    assert _kinds(of(MOST_LOOSE + 1), other) == ["m", "O"]
    assert _kinds(of(0), other) == ["m", "O"], "it is fenced if its lease is lost"
    assert _kinds(of(2)) == ["m"], "by itself, its error is that of the command"
    assert _kinds(of(1)) == ["O"]
    for more in ({"is_resent": True}, {"has_failures": True}, {"emitted": 1}):
        assert _kinds(of(2, **more), other) == ["m", "O"]
    assert _kinds(of(2, aging=None), other) == ["o", "o", "O"]
    two = of(2)
    two.steps[0].add(EntryId("2-1"), b"r", None, 1)  # type: ignore[union-attr]
    assert _kinds(two, other) == ["m", "O"]
