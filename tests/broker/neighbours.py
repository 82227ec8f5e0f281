"""Neighbours: other partitions whose operations go in one command with those that are looked at.

Two stand before them, of which one has no more than an answer, and a fate befalls both; one stands
behind them, and all goes well. All must have what they would have alone, whatever becomes of the
others. Their entry has the id, and its scope the name, of one in the middle: what the script knows
of one partition is not of another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tests.broker.tenure import ALREADY, DONE, ZERO, Tenure, steps_of
from wherry.broker.calls import Call, Retention
from wherry.broker.commits import Answer, Emit, Fail, Operation, Outcome
from wherry.errors import StoreError
from wherry.model import EntryId, Partition, ScopeId, Token

FATES = ("done", "fenced", "bad", "gone", "damaged", "full")
"""What befalls: nothing; another owner; a reply key of another type; an entry that is finished;
attempts of another type; a reply stream that takes no more, which no look can tell."""
_BEFORE, _BEHIND, _SINGLE = Partition(1), Partition(2), Partition(3)
_S = ScopeId("s")
_TOKEN = Token("1:neighbour")
_LAST_ID = "18446744073709551615-18446744073709551615"


async def call_beside(
    held: Tenure,
    operations: Sequence[Operation],
    fate: str,
    *,
    token: Token,
    is_resent: bool,
    retention: Retention,
    aging: Collection[ScopeId] | None = None,
    has_failures: bool = True,
) -> Any:
    """Send operations of partition 0 between those of its neighbours; raises as `Tenure.call`."""
    ids = [one.entry_id for one in operations if not isinstance(one, Emit)]
    entry_id = EntryId(ids[0] if ids else "5-5")
    single_fate = "done" if fate == "damaged" else fate
    calls = [
        await _prepare(held, _BEFORE, entry_id, fate),
        await _prepare(held, _SINGLE, entry_id, single_fate),
        Call(
            partition=ZERO,
            token=token,
            steps=steps_of(operations),
            is_resent=is_resent,
            aging=aging,
            has_failures=has_failures,
        ),
        await _prepare(held, _BEHIND, entry_id, "done"),
    ]
    before, single, answer, behind = await held.joint(*calls, retention=retention)
    await _verify(held, _BEFORE, fate, before)
    await _verify(held, _SINGLE, single_fate, single)
    await _verify(held, _BEHIND, "done", behind)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _names(held: Tenure, partition: Partition) -> tuple[str, ...]:
    return (*held.keys.of_owner(partition), held.keys.replies(partition, _S))


async def _prepare(held: Tenure, partition: Partition, entry_id: EntryId, fate: str) -> Call:
    entries, lease, attempts, _, replies = _names(held, partition)
    await held.link.call("HSET", lease, "token", _TOKEN, "emit", "0")
    await held.link.call("XADD", entries, entry_id, "s", _S, "m", b"question")
    if fate == "bad":
        await held.link.call("SADD", replies, "mine")
    elif fate == "damaged":
        await held.link.call("SADD", attempts, "mine")
    elif fate == "full":
        await held.link.call("XADD", replies, _LAST_ID, "m", "last")
    elif fate == "gone":
        await held.link.call("XDEL", entries, entry_id)
    failure, answer = Fail(entry_id, _S, b"held"), Answer(entry_id, _S, b"beside")
    return Call(
        partition=partition,
        token=Token("1:before") if fate == "fenced" else _TOKEN,
        steps=steps_of((answer,) if partition == _SINGLE else (failure, answer)),
        has_failures=False,  # before this call
    )


async def _verify(held: Tenure, partition: Partition, fate: str, answer: Any) -> None:
    entries, _, attempts, _, replies = names = _names(held, partition)
    if fate in ("damaged", "full"):
        assert isinstance(answer, StoreError), (fate, answer)
    else:
        bad = (Outcome.BAD, f"reply key {replies} is no stream")
        of_both = {"done": [DONE] * 2, "gone": [ALREADY] * 2, "bad": [DONE, bad], "fenced": None}
        expected = of_both[fate]
        if partition == _SINGLE and expected:
            expected = expected[1:]
        assert answer == expected, (fate, answer)
    if fate == "done":
        written = await held.stream(replies)
        assert [(one["m"], one["s"]) for one in written] == [(b"beside", _S.encode())]
        assert await held.link.call("PTTL", replies) > 0
        assert await held.link.call("EXISTS", attempts) == 0
    left = await held.link.call("XLEN", entries)
    assert left == (0 if fate in ("done", "gone", "full") else 1), (fate, left)
    await held.link.call("DEL", *names)
