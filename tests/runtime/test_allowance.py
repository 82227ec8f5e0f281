"""How the window is divided among partitions that are read apart."""

from __future__ import annotations

from wherry.config import Config
from wherry.engine.ledger import Ledger
from wherry.model import EntryId, Partition, ScopeId, Token
from wherry.runtime.allowance import Allowance
from wherry.runtime.holding import Holding, Holdings

SMALL = Config(in_flight=100, in_flight_per_partition=100, message_bytes=1_000)


def held(count: int, config: Config = SMALL) -> tuple[Allowance, list[Holding]]:
    holdings = Holdings()
    for number in range(count):
        ledger = Ledger(partition=Partition(number), token=Token("1:a"))
        holdings.add(Holding(ledger, EntryId("0-0")))
    return Allowance(config, holdings), holdings.all()


def take(holding: Holding, count: int, size_bytes: int = 10) -> None:
    for number in range(count):
        holding.ledger.hold(EntryId(f"{number + 1}-0"), size_bytes)


def ask(
    allowance: Allowance, holding: Holding, *, more: bool = False, settling: bool = False
) -> int:
    return allowance.ask(holding, is_backlogged=more, is_settling=settling)


def test_quiet_partitions_share_the_window():
    allowance, holdings = held(4)
    assert [ask(allowance, one) for one in holdings] == [25] * 4


def test_full_window_lets_nobody_read():
    allowance, (one, other) = held(2)
    take(one, 100)
    assert ask(allowance, other) == 0
    assert ask(allowance, one) == 0


def test_what_backlogged_partitions_were_granted_is_not_granted_twice():
    allowance, (one, other) = held(2)
    for holding in (one, other):
        for scope in range(20):
            holding.track(ScopeId(f"s{scope}"))
    first = ask(allowance, one, more=True)
    assert first == 100
    assert ask(allowance, other, more=True) == 0
    allowance.back(one)
    assert ask(allowance, other, more=True) == 100


def test_while_answers_make_room_nobody_reads_for_each_of_them():
    allowance, (one, other) = held(2)
    take(one, 60)
    assert ask(allowance, other, settling=True) == 0
    assert ask(allowance, other) == 40


def test_what_a_silent_node_has_in_hand_takes_no_room_of_the_others():
    allowance, (one, other) = held(2)
    take(one, 100)
    allowance.away.add(one)
    assert ask(allowance, other, settling=True) == 50
    allowance.away.discard(one)
    assert ask(allowance, other) == 0


def test_large_entries_are_asked_for_in_small_numbers():
    config = Config(in_flight_bytes=10 * 2**20)
    allowance, (one, other) = held(2, config)
    take(one, 2, 2**20)
    allowance.note()
    assert ask(allowance, other) == 4
