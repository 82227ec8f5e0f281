"""Entries gather before a read where cores are crowded, as long as that costs no rate."""

from __future__ import annotations

import pytest

from wherry.engine.gathering import (
    CALM,
    CROWDED,
    ENOUGH,
    LEAST,
    MANY,
    RESTS_S,
    SLOWER,
    TRIAL,
    WINDOW_S,
    Gathering,
    Usage,
)

LONGEST_S = 0.03
RATE = 2 * ENOUGH / LONGEST_S
"""Entries in a second, of which enough come in half of the longest pause."""


class Machine:
    """Reads of a worker."""

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self.now_s = 1_000.0
        self.longest_s = longest_s
        self.usage = Usage(50.0, 5.0)
        self.gathering = Gathering(longest_s, lambda: self.usage)
        self.gathering.pause_s(1, self.now_s)

    def window(self, rate: float, waits: float = 2 * CROWDED, runs: float = 1.0) -> float:
        """Let a window pass in reads of a few entries; returns the pause behind the last of them.

        Args:
            rate: entries in a second.
            waits: seconds of waiting for a core, to each second of running.
            runs: part of the time for which the thread runs, as it is told.
        """
        reads = 128  # in binary fractions of a window, so that it ends with the last of them
        brought, pause_s = 0, 0.0
        for number in range(1, reads + 1):
            self.now_s += WINDOW_S / reads
            ran_s = runs * WINDOW_S / reads
            self.usage = Usage(self.usage.ran_s + ran_s, self.usage.waited_s + ran_s * waits)
            due = int(rate * WINDOW_S * number / reads)
            pause_s = self.gathering.pause_s(due - brought, self.now_s)
            brought = due
        return pause_s

    def windows_until(self, *, is_on: bool, rate: float = RATE) -> int:
        """How many windows pass until it gathers, or does not."""
        for count in range(1, 1_000):
            if (self.window(rate) > 0) is is_on:
                return count
        raise AssertionError("never")


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_nothing_gathers_where_cores_are_free(machine: Machine):
    assert [machine.window(RATE, waits=CROWDED * 0.9) for _ in range(50)] == [0] * 50


def test_nothing_gathers_where_nobody_tells_of_cores(machine: Machine):
    machine.gathering = Gathering(LONGEST_S, lambda: Usage(0.0, 0.0))
    machine.gathering.pause_s(1, machine.now_s)
    assert [machine.window(RATE) for _ in range(50)] == [0] * 50


def test_as_many_gather_as_are_worth_a_turn(machine: Machine):
    assert machine.window(RATE) == pytest.approx(LONGEST_S / 2, rel=0.01)


def test_nobody_waits_for_longer_than_is_allowed(machine: Machine):
    assert machine.window(RATE / 10) == LONGEST_S


def test_nobody_waits_for_a_few_entries(machine: Machine):
    few = LEAST / LONGEST_S
    assert machine.window(few * 1.2) > 0
    assert Machine().window(few * 0.8) == 0
    assert machine.window(few * 0.9) == 0, "nor goes on to"


def test_nobody_waits_behind_a_read_that_has_brought_many(machine: Machine):
    machine.window(RATE)
    assert machine.gathering.pause_s(MANY - 1, machine.now_s) > 0
    assert machine.gathering.pause_s(MANY, machine.now_s) == 0


def test_gathering_never_is_a_setting():
    machine = Machine(longest_s=0.0)
    assert [machine.window(RATE) for _ in range(50)] == [0] * 50


def test_it_ends_when_cores_are_free_again(machine: Machine):
    assert machine.window(RATE) > 0
    assert machine.window(RATE, waits=CALM * 1.1) > 0, "who gathers waits less often"
    assert machine.window(RATE, waits=CALM * 0.9) == 0
    assert machine.window(RATE) > 0, "and comes back as soon as they are crowded"


def test_it_ends_when_nobody_tells_of_cores_any_more(machine: Machine):
    assert machine.window(RATE) > 0
    assert machine.window(RATE, runs=0.0) == 0


def test_a_rate_that_falls_ends_it_for_some_time(machine: Machine):
    assert machine.window(RATE) > 0
    assert machine.window(RATE * SLOWER * 1.05) > 0
    assert machine.window(RATE * SLOWER * 0.95) == 0
    assert machine.windows_until(is_on=True) * WINDOW_S == RESTS_S[0]


def test_it_rests_the_longer_the_more_often_it_was_in_vain(machine: Machine):
    rests_s: list[float] = []
    for _ in range(7):
        rests_s.append(machine.windows_until(is_on=True) * WINDOW_S)
        machine.window(RATE / 2)
    assert rests_s[1:] == [RESTS_S[0] * 2**power for power in range(5)] + [RESTS_S[1]]


def test_what_failed_long_ago_is_forgotten(machine: Machine):
    for _ in range(3):
        machine.windows_until(is_on=True)
        machine.window(RATE / 2)
    machine.windows_until(is_on=True)
    for _ in range(int(RESTS_S[1] / WINDOW_S)):
        machine.window(RATE)
    machine.windows_until(is_on=True)
    machine.window(RATE / 2)
    assert machine.windows_until(is_on=True) * WINDOW_S == RESTS_S[0]


def test_a_trial_is_followed_by_a_window_without(machine: Machine):
    """Who sends as fast as he is answered is slow from the first pause on: then it shows."""
    assert machine.windows_until(is_on=True) == 1
    assert machine.windows_until(is_on=False) == TRIAL
    assert machine.windows_until(is_on=True) == 1


def test_what_comes_on_top_is_looked_at_before_it_is_held_up(machine: Machine):
    """Senders that wait for their answers may begin while a trial is on."""
    assert machine.window(RATE / 8) > 0
    assert machine.window(RATE / 8 / SLOWER * 0.95) > 0
    assert machine.window(RATE / 8 / SLOWER * 1.05) == 0
    assert machine.window(RATE) > 0, "and it does not rest"
    assert machine.window(RATE / 2) == 0


def test_a_lull_is_no_rate_that_has_fallen(machine: Machine):
    assert machine.window(RATE) > 0
    machine.now_s += 3 * WINDOW_S
    assert machine.gathering.pause_s(1, machine.now_s) == 0
    assert machine.window(RATE) > 0


def test_a_lull_does_not_cut_a_rest_short(machine: Machine):
    machine.window(RATE)
    machine.window(RATE / 2)
    machine.now_s += RESTS_S[0] / 2
    rest_s = machine.windows_until(is_on=True) * WINDOW_S
    assert RESTS_S[0] / 2 <= rest_s <= RESTS_S[0] / 2 + WINDOW_S


def test_the_longest_pause_is_no_lull():
    machine = Machine(longest_s=4 * WINDOW_S)
    few = 2 * LEAST / machine.longest_s
    assert machine.window(few) > 0
    machine.now_s += 4 * WINDOW_S
    machine.gathering.pause_s(1, machine.now_s)
    assert machine.window(few) == 0, "it was slower"
    assert machine.window(few) == 0, "and rests"
