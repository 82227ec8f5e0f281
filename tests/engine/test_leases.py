"""Shed and grab: every member computes alone, and together they share within one."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.leases import Balance, fair_share
from wherry.model import Partition

BEAT_MS = 1000
Survey = dict[Partition, tuple[str, int]]


@given(partitions=st.integers(1, 200), count=st.integers(1, 30))
def test_fair_shares_add_up_and_differ_by_one_at_most(partitions: int, count: int):
    members = [f"w{number}" for number in range(count)]
    shares = [fair_share(partitions, members, one) for one in members]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True), "the first to join take what is left over"


def test_who_is_no_member_has_no_share():
    assert fair_share(8, ["a", "b"], "c") == 0
    assert fair_share(8, [], "c") == 0


def survey(*owners: str, left_ms: int = 1000) -> Survey:
    return {
        Partition(number): (owner, left_ms if owner else 0) for number, owner in enumerate(owners)
    }


def joined(*names: str) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def held(*numbers: int, leaving: tuple[int, ...] = ()) -> dict[Partition, bool]:
    return {Partition(number): number in leaving for number in numbers}


def test_who_holds_too_little_claims_what_is_free():
    plan = Balance("a", BEAT_MS).plan(joined("a", "b"), held(), survey("", "", "b", "b"), 0)
    assert sorted(plan.candidates) == [0, 1]
    assert plan.wanted == 2
    assert plan.shed == 0


def test_live_leases_of_others_are_no_candidates():
    plan = Balance("a", BEAT_MS).plan(
        joined("a", "b"), held(), survey("b", "b", "b", "b", left_ms=700), 0
    )
    assert plan.candidates == []
    assert plan.wanted == 0
    assert plan.next_expiry_ms == 700


def test_leases_that_ran_out_and_own_ones_that_are_not_held_are_candidates():
    leases: Survey = {
        Partition(0): ("dead", -5),
        Partition(1): ("a", 900),
        Partition(2): ("b", 900),
        Partition(3): ("b", 400),
    }
    plan = Balance("a", BEAT_MS).plan(joined("a", "b"), held(), leases, 0)
    assert sorted(plan.candidates) == [0, 1]
    assert plan.next_expiry_ms == 400


def test_surplus_is_shed_when_it_has_lasted_a_beat():
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "a", "a")
    mine = held(0, 1, 2, 3)
    assert balance.plan(joined("a", "b"), mine, leases, 0).shed == 0
    assert balance.plan(joined("a", "b"), mine, leases, 100).shed == 0, "a hint is no beat"
    assert balance.plan(joined("a"), mine, leases, 1000).shed == 0, "the other one left again"
    assert balance.plan(joined("a", "b"), mine, leases, 2000).shed == 0
    assert balance.plan(joined("a", "b"), mine, leases, 2999).shed == 2


def test_what_is_being_handed_on_is_not_shed_again():
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "a", "a")
    for beat in range(3):
        mine = held(0, 1, 2, 3, leaving=(2, 3))
        assert balance.plan(joined("a", "b"), mine, leases, beat * BEAT_MS).shed == 0


def test_part_of_a_member_that_leaves_it_free_goes_to_the_others():
    """But not what was just shed, however many hints there are: its new owner is on its way."""
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "", "")
    at_ms = [0, 1, 2, 3, 1000, 2000, 2899, 2900]
    plans = [balance.plan(joined("a", "b"), held(0, 1), leases, now_ms) for now_ms in at_ms]
    assert [plan.wanted for plan in plans] == [0, 0, 0, 0, 0, 0, 0, 2]


def test_member_that_is_left_out_keeps_what_it_holds():
    """The others share the rest within one."""
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "b", "", "c", "c")
    plans = [
        balance.plan(joined("a", "b", "c"), held(0, 1), leases, now_ms) for now_ms in (0, 2900)
    ]
    assert [plan.wanted for plan in plans] == [0, 1]


def test_member_that_is_left_out_comes_in_by_a_claim_or_by_joining_anew():
    members = joined("a", "b")
    for change in ("claim", "join", "none"):
        balance = Balance("a", BEAT_MS)
        balance.plan(members, held(0, 1), survey("a", "a", "", ""), 0)
        balance.plan(members, held(0, 1), survey("a", "a", "", ""), 3000)
        assert balance.plan(members, held(0, 1, 2), survey("a", "a", "a", ""), 4000).wanted == 1
        leases = survey("a", "a", "a", "b" if change == "claim" else "a")
        mine = held(0, 1, 2) if change == "claim" else held(0, 1, 2, 3)
        now = members | {"b": 5000} if change == "join" else members
        plans = [balance.plan(now, mine, leases, now_ms) for now_ms in (5000, 6000)]
        assert [plan.shed for plan in plans] == [0, {"claim": 1, "join": 2, "none": 0}[change]]


def test_member_whose_lease_ran_out_is_left_out_at_once():
    """It died, though it has not been silent for long enough to be forgotten."""
    leases: Survey = {
        Partition(0): ("a", 900),
        Partition(1): ("a", 900),
        Partition(2): ("b", -1),
        Partition(3): ("b", -1),
    }
    assert Balance("a", BEAT_MS).plan(joined("a", "b"), held(0, 1), leases, 0).wanted == 2


def test_member_that_claims_nothing_knows_it_before_the_others_act():
    balance = Balance("b", BEAT_MS)
    leases = survey("a", "a", "", "")
    plans = [balance.plan(joined("a", "b"), held(), leases, now_ms) for now_ms in (0, 1000, 2000)]
    assert [plan.is_left_out for plan in plans] == [False, False, True]
    assert plans[-1].wanted == 2, "it still tries"


def test_clock_that_is_set_back_starts_the_waiting_anew():
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "", "")
    at_ms = [50_000, 10_000, 11_000, 12_000, 13_000]
    wanted = [balance.plan(joined("a", "b"), held(0, 1), leases, now_ms).wanted for now_ms in at_ms]
    assert wanted == [0, 0, 0, 0, 2]


def test_who_joins_shortly_after_another_finds_everything_shed_at_once():
    """Or what went to the first would move on to the second."""
    balance = Balance("a", BEAT_MS)
    leases, mine = survey(*"aaaaaaaa"), held(*range(8))
    assert balance.plan(joined("a", "b"), mine, leases, 0).shed == 0
    assert balance.plan(joined("a", "b", "c"), mine, leases, 900).shed == 0
    assert balance.plan(joined("a", "b", "c", "d"), mine, leases, 1700).shed == 0
    assert balance.plan(joined("a", "b", "c", "d"), mine, leases, 2600).shed == 6


@given(
    partitions=st.integers(1, 40),
    steps=st.lists(st.sampled_from(["join", "leave", "die", "fail", "rounds"]), max_size=12),
    seed=st.integers(0, 1000),
)
def test_fleet_comes_to_rest_with_everything_owned_and_balanced(
    partitions: int, steps: list[str], seed: int
):
    """Also with members that cannot claim: the others share the rest, and nothing moves on."""
    choose = random.Random(seed)
    fleet = Fleet(partitions)
    fleet.join()
    for step in steps:
        able = [one for one in fleet.members if one not in fleet.unable]
        if step == "join" and len(fleet.balances) < 6:
            fleet.join()
        elif step == "fail" and len(able) > 1:
            fleet.unable.add(choose.choice(able))
        elif step in ("leave", "die") and len(able) > 1:
            fleet.leave(choose.choice(able), is_clean=step == "leave")
        else:
            fleet.round(choose)
    for _ in range(40):
        fleet.round(choose)
    assert "" not in fleet.owners
    counts = {one: fleet.owners.count(one) for one in fleet.members}
    assert sum(counts.values()) == partitions
    shares = [count for one, count in counts.items() if one not in fleet.unable]
    assert max(shares) - min(shares) <= 1
    before = list(fleet.owners)
    for _ in range(10):
        fleet.round(choose)
    assert fleet.owners == before, "at rest nothing moves"


@given(
    partitions=st.integers(1, 40),
    count=st.integers(1, 6),
    joining=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_scaling_out_moves_nothing_twice_and_nothing_that_need_not(
    partitions: int, count: int, joining: int, seed: int
):
    choose = random.Random(seed)
    fleet = Fleet(partitions)
    for _ in range(count):
        fleet.join()
    for _ in range(20):
        fleet.round(choose)
    fleet.moves.clear()
    for _ in range(joining):
        fleet.join()
    for _ in range(20):
        fleet.round(choose)
    least = sum(fleet.owners.count(one) for one in fleet.members[count:])
    assert sum(fleet.moves.values()) == least
    assert set(fleet.moves.values()) <= {1}


class Fleet:
    """Workers that plan in random order over one set of leases; dead ones are free at once.

    Those that are ``unable`` try, and fail.
    """

    def __init__(self, partitions: int) -> None:
        self.owners = [""] * partitions
        self.members: list[str] = []
        self.balances: dict[str, Balance] = {}
        self.unable: set[str] = set()
        self.moves: Counter[int] = Counter()
        self._joined = 0
        self._now_ms = 0

    def join(self) -> None:
        self._joined += 1
        name = f"w{self._joined}"
        self.members.append(name)
        self.balances[name] = Balance(name, BEAT_MS)

    def leave(self, name: str, *, is_clean: bool) -> None:
        self.members.remove(name)
        del self.balances[name]
        self.owners = [("" if is_clean else "!dead") if one == name else one for one in self.owners]

    def round(self, choose: random.Random) -> None:
        self._now_ms += BEAT_MS
        for name in choose.sample(self.members, len(self.members)):
            leases: Survey = {
                Partition(number): (owner, -1 if owner == "!dead" else 1000 * bool(owner))
                for number, owner in enumerate(self.owners)
            }
            mine = {Partition(n): False for n, one in enumerate(self.owners) if one == name}
            plan = self.balances[name].plan(joined(*self.members), mine, leases, self._now_ms)
            for partition in plan.candidates[: plan.wanted]:
                assert self.owners[partition] in ("", "!dead", name), "no live lease is taken"
                if name not in self.unable:
                    self.owners[partition] = name
                    self.moves[partition] += 1
            for partition in list(mine)[: plan.shed]:
                self.owners[partition] = ""
