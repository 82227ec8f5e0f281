"""Shed and grab: every member computes alone, and together they share within one."""

from __future__ import annotations

import random

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


def held(*numbers: int, leaving: tuple[int, ...] = ()) -> dict[Partition, bool]:
    return {Partition(number): number in leaving for number in numbers}


def test_who_holds_too_little_claims_what_is_free():
    plan = Balance("a", BEAT_MS).plan(["a", "b"], held(), survey("", "", "b", "b"), 0)
    assert sorted(plan.candidates) == [0, 1]
    assert plan.wanted == 2
    assert plan.shed == 0


def test_live_leases_of_others_are_no_candidates():
    plan = Balance("a", BEAT_MS).plan(
        ["a", "b"], held(), survey("b", "b", "b", "b", left_ms=700), 0
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
    plan = Balance("a", BEAT_MS).plan(["a", "b"], held(), leases, 0)
    assert sorted(plan.candidates) == [0, 1]
    assert plan.next_expiry_ms == 400


def test_surplus_is_shed_when_it_has_lasted_a_beat():
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "a", "a")
    mine = held(0, 1, 2, 3)
    assert balance.plan(["a", "b"], mine, leases, 0).shed == 0
    assert balance.plan(["a", "b"], mine, leases, 100).shed == 0, "a hint is no beat"
    assert balance.plan(["a"], mine, leases, 1000).shed == 0, "the other one left again"
    assert balance.plan(["a", "b"], mine, leases, 2000).shed == 0
    assert balance.plan(["a", "b"], mine, leases, 2999).shed == 2


def test_what_is_being_handed_on_is_not_shed_again():
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "a", "a")
    for beat in range(3):
        mine = held(0, 1, 2, 3, leaving=(2, 3))
        assert balance.plan(["a", "b"], mine, leases, beat * BEAT_MS).shed == 0


def test_what_nobody_takes_is_adopted_one_at_a_time_after_some_beats():
    """But not what was just shed, however many hints there are: its new owner is on its way."""
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "", "")
    at_ms = [0, 1, 2, 3, 1000, 1999, 2000]
    wanted = [balance.plan(["a", "b"], held(0, 1), leases, now_ms).wanted for now_ms in at_ms]
    assert wanted == [0, 0, 0, 0, 0, 1, 1]


def test_clock_that_is_set_back_starts_the_waiting_anew():
    balance = Balance("a", BEAT_MS)
    leases = survey("a", "a", "", "")
    at_ms = [50_000, 10_000, 11_000, 12_000]
    wanted = [balance.plan(["a", "b"], held(0, 1), leases, now_ms).wanted for now_ms in at_ms]
    assert wanted == [0, 0, 0, 1]


@given(
    partitions=st.integers(1, 40),
    steps=st.lists(st.sampled_from(["join", "leave", "die", "rounds"]), max_size=12),
    seed=st.integers(0, 1000),
)
def test_fleet_comes_to_rest_with_everything_owned_and_balanced(
    partitions: int, steps: list[str], seed: int
):
    choose = random.Random(seed)
    fleet = Fleet(partitions)
    fleet.join()
    for step in steps:
        if step == "join" and len(fleet.balances) < 6:
            fleet.join()
        elif step in ("leave", "die") and len(fleet.balances) > 1:
            fleet.leave(choose.choice(fleet.members), is_clean=step == "leave")
        else:
            fleet.round(choose)
    for _ in range(40):
        fleet.round(choose)
    assert "" not in fleet.owners
    counts = [fleet.owners.count(one) for one in fleet.members]
    assert sum(counts) == partitions
    assert max(counts) - min(counts) <= 1
    before = list(fleet.owners)
    for _ in range(10):
        fleet.round(choose)
    assert fleet.owners == before, "at rest nothing moves"


class Fleet:
    """Workers that plan in random order over one set of leases; dead ones are free at once."""

    def __init__(self, partitions: int) -> None:
        self.owners = [""] * partitions
        self.members: list[str] = []
        self.balances: dict[str, Balance] = {}
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
            plan = self.balances[name].plan(self.members, mine, leases, self._now_ms)
            for partition in plan.candidates[: plan.wanted]:
                assert self.owners[partition] in ("", "!dead", name), "no live lease is taken"
                self.owners[partition] = name
            for partition in list(mine)[: plan.shed]:
                self.owners[partition] = ""
