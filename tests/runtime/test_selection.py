"""What the next read asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.test_reader import at_ease, holding
from wherry import Config
from wherry.model import EntryId, ScopeId
from wherry.runtime.holding import Holding, Holdings
from wherry.runtime.selection import BATCH, MAX_COUNT, SAME, Selection
from wherry.runtime.window import Room


def selection(partitions: int, **config: Any) -> tuple[Selection, Holdings]:
    """One that has met an entry of 200 bytes: before that each may be the largest."""
    holdings = Holdings()
    for number in range(partitions):
        holdings.add(holding(number))
    bounds = Config(**config)
    chooser = Selection(bounds, holdings, at_ease)
    chooser.note([], [], Room(bounds.in_flight - 1, bounds.in_flight_bytes - 200))
    return chooser, holdings


@pytest.mark.parametrize("partitions", [1, 4, 64, 256])
def test_read_of_partitions_nobody_knows_brings_a_batch_at_most_and_not_the_window(partitions: int):
    chooser, _ = selection(partitions)
    choice = chooser.choose(0, is_settling=False)
    assert choice is not None
    assert len(choice.rewinds) == partitions
    assert choice.count == min(MAX_COUNT, BATCH // partitions)
    assert choice.count * partitions <= BATCH < Config().in_flight


def test_each_partition_comes_to_be_the_first():
    """The router takes what there is room for in this order, and the last would starve."""
    chooser, holdings = selection(3)
    firsts: list[Holding] = []
    for turn in range(3 * SAME):
        choice = chooser.choose(turn, is_settling=False)
        assert choice is not None
        assert {*choice.rewinds} == {*holdings.all()}
        firsts.append(next(iter(choice.rewinds)))
    zero, one, two = holdings.all()
    assert firsts == [zero] * SAME + [one] * SAME + [two] * SAME


def test_choice_follows_what_has_changed_since_the_last():
    chooser, holdings = selection(4)
    zero, *_ = holdings.all()

    def choose() -> dict[Holding, int]:
        choice = chooser.choose(0, is_settling=False)
        assert choice is not None
        return choice.rewinds

    before = choose()
    assert choose() is before
    zero.ledger.rewind()
    assert choose()[zero] == 1
    chooser.note(holdings.all(), [zero], Room(4_095, 2**26 - 200))
    assert [*choose()][-1] is zero, "the quiet ones come first"
    chooser.note(holdings.all(), [], Room(4_095, 2**26 - 200))
    assert next(iter(choose())) is zero
    holdings.remove(zero)
    assert zero not in choose()
    holdings.add(holding(9))
    assert len(choose()) == 4


def test_small_window_is_shared_out():
    chooser, _ = selection(8, in_flight=20, in_flight_per_partition=20)
    choice = chooser.choose(0, is_settling=False)
    assert choice is not None
    assert choice.count == 2


def test_partitions_with_a_backlog_are_read_a_few_at_a_time_and_quiet_ones_always():
    chooser, holdings = selection(64)
    backlogged = holdings.all()[:32]
    for one in backlogged:
        for scope in range(16):
            one.track(ScopeId(f"s{scope}"))
    chooser.note(holdings.all(), backlogged, Room(4_095, 2**26 - 200))
    choice = chooser.choose(0, is_settling=False)
    assert choice is not None
    assert choice.is_partial
    chosen = [one for one in choice.rewinds if one in backlogged]
    assert chosen == backlogged[: len(chosen)], "the least recently read first"
    assert (choice.count, len(chosen)) == (256, BATCH // 256)
    assert set(holdings.all()) - set(backlogged) <= set(choice.rewinds)


def test_while_commits_are_answered_a_read_waits_for_room_for_a_batch():
    chooser, holdings = selection(4)
    ledger = holdings.all()[0].ledger
    for number in range(1, Config().in_flight - BATCH + 2):
        ledger.hold(EntryId(f"{number}-0"), 1)
    assert chooser.choose(0, is_settling=True) is None
    assert chooser.choose(0, is_settling=False) is not None
    ledger.forget(EntryId("1-0"))
    assert chooser.choose(0, is_settling=True) is not None


CHANGES: dict[str, Callable[[Holdings, Holding], None]] = {
    "lost": lambda holdings, one: holdings.remove(one),
    "drains": lambda _, one: one.ledger.drain(),
    "is unreadable": lambda _, one: one.ledger.mark(is_unreadable=True),
    "has enough in hand": lambda _, one: one.ledger.take(
        {EntryId(f"{n}-0"): 1 for n in range(4)}, EntryId("3-0")
    ),
    "has enough deferred": lambda _, one: one.deferred.give_back(
        ScopeId("s"), [EntryId(f"{n}-0") for n in range(5)]
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_partition_that_may_not_be_read_any_more_is_left_out(
    change: Callable[[Holdings, Holding], None],
):
    chooser, holdings = selection(3, in_flight_per_partition=4, deferred=5)
    one, *others = holdings.all()
    before = chooser.choose(0, is_settling=False)
    assert before is not None
    assert set(before.rewinds) == {one, *others}
    change(holdings, one)
    after = chooser.choose(1, is_settling=False)
    assert after is not None
    assert set(after.rewinds) == set(others)


def test_partition_that_comes_or_is_a_stream_again_is_read():
    chooser, holdings = selection(2)
    one, other = holdings.all()
    other.ledger.mark(is_unreadable=True)
    first = chooser.choose(0, is_settling=False)
    assert first is not None
    assert set(first.rewinds) == {one}
    other.ledger.mark(is_unreadable=False)
    assert chooser.is_outdated(first)
    holdings.add(late := holding(7))
    second = chooser.choose(1, is_settling=False)
    assert second is not None
    assert set(second.rewinds) == {one, other, late}
    assert not chooser.is_outdated(second)


def test_read_that_waits_behind_an_old_cursor_is_outdated():
    chooser, holdings = selection(2)
    choice = chooser.choose(0, is_settling=False)
    assert choice is not None
    assert not chooser.is_outdated(choice)
    holdings.all()[1].ledger.rewind()
    assert chooser.is_outdated(choice)
    again = chooser.choose(1, is_settling=False)
    assert again is not None
    assert not chooser.is_outdated(again)


def test_partition_claimed_anew_takes_the_place_of_the_one_before():
    chooser, holdings = selection(1)
    [before] = holdings.all()
    before.ledger.hold(EntryId("1-0"), 9)
    holdings.add(now := holding(0))
    assert holdings.in_flight() == (0, 0)
    choice = chooser.choose(0, is_settling=False)
    assert choice is not None
    assert set(choice.rewinds) == {now}
