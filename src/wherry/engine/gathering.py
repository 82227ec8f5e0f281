"""Gathering: whether to let entries gather before they are read, where cores are crowded.

A worker that gets a core whenever it wants one reads what there is as soon as it is there. One that
waits for its core comes to caches that others have filled meanwhile, and its turn delays theirs:
fewer and larger turns are then cheaper for all of them, and seldom later. But senders that wait for
their answers would only send later, and no more at a time: the rate falls, which ends the trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 0.25
"""So often it is looked how crowded it is."""
CROWDED = 1 / 3
"""Seconds of waiting for a core, to each second of running, from which on it is."""
CALM = 1 / 6
"""The same, below which it is no longer: who gathers waits less often."""
ENOUGH = 192
"""A pause is to bring so many entries."""
MANY = 256
"""After so many there is none: they came by themselves."""
LEAST = 16
"""Where the longest pause brings fewer than these, nobody waits for them."""
SLOWER = 0.7
"""A rate that is less than this part of the one without pauses may be so because of them."""
TRIAL = 40
"""Windows, after which one without gathering shows anew what comes by itself."""
RESTS_S = (4.0, 64.0)
"""Without a trial after one that failed, and at most: it doubles with each that follows soon."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a thread has had of its cores since it began.

    Attributes:
        ran_s: seconds on one.
        waited_s: seconds of waiting for one.
    """

    ran_s: float
    waited_s: float


class Gathering:
    """Decides for one worker, from read to read."""

    __slots__ = (
        "_before", "_entries", "_left", "_longest_s", "_rate", "_rate_without", "_rest_s",
        "_rests_until_s", "_since_s", "_usage",
    )  # fmt: skip

    def __init__(self, longest_s: float, usage: Callable[[], Usage]) -> None:
        """Pause for ``longest_s`` at most; ``usage`` is that of the thread that reads."""
        self._longest_s = longest_s
        self._usage = usage
        self._before = usage()
        self._since_s = 0.0
        self._entries = 0  # since then
        self._rate = 0.0  # of the window before, entries in a second
        self._rate_without = 0.0  # the same of the last window without gathering
        self._left = 0  # windows of the trial that is on
        self._rest_s = 0.0  # after the last trial that failed
        self._rests_until_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether entries are let gather: cores are crowded."""
        return self._left > 0

    def pause_s(self, brought: int, now_s: float) -> float:
        """How long to wait before the next read, when the last one has brought so many."""
        self._entries += brought
        if now_s - self._since_s >= WINDOW_S:
            self._look(now_s)
        if not self._left or brought >= MANY:
            return 0.0
        return min(self._longest_s, ENOUGH / self._rate)

    def _look(self, now_s: float) -> None:
        """A window has ended: begin, go on or end."""
        usage, before = self._usage(), self._before
        passed_s = now_s - self._since_s
        rate = self._rate = self._entries / passed_s
        self._before, self._since_s, self._entries = usage, now_s, 0
        waited_s, ran_s = usage.waited_s - before.waited_s, usage.ran_s - before.ran_s
        is_worth_it = rate * self._longest_s >= LEAST
        if passed_s > 2 * WINDOW_S + self._longest_s:
            self._left = 0  # nothing came for a while: what was is over
        elif self._left and rate < self._rate_without * SLOWER:
            self._left = 0
            self._rest(now_s)
        elif self._left and rate * SLOWER > self._rate_without:
            self._left = 0  # there is more than what it was tried with: look at that first
        elif self._left:
            is_calm = waited_s <= ran_s * CALM
            self._left = self._left - 1 if is_worth_it and not is_calm else 0
        elif is_worth_it and waited_s > ran_s * CROWDED and now_s >= self._rests_until_s:
            self._left, self._rate_without = TRIAL, rate

    def _rest(self, now_s: float) -> None:
        """A trial has failed."""
        first_s, longest_s = RESTS_S
        is_soon = self._rest_s and now_s - self._rests_until_s < longest_s
        self._rest_s = min(self._rest_s * 2, longest_s) if is_soon else first_s
        self._rests_until_s = now_s + self._rest_s
