"""Meter: how long messages wait, how long they are handled, and what commits take.

It measures where somebody listens, and then not each message of a flood: the first `BUDGET` of
each turn of the pulse are looked at one by one, and of what comes beyond one in `STRIDE`, which
counts for those that were passed over. So the counts are right, the shape of a histogram is that
of a large sample, and a worker at its limit spends next to nothing on being watched.
"""

from __future__ import annotations

import time

from ..engine.histogram import COUNTS, Histogram
from .clock import Clock
from .delivery import Delivery, Timer

BUDGET = 32
STRIDE = 64


class Meter:
    """Measures one worker; used by the event loop's thread and read by any.

    Attributes:
        due: so many messages further one is measured.
        handling: seconds from ``receive()`` to the finish of a message, or to its failure.
        queueing: seconds from the append of an entry to its first ``receive()``, both by Redis'
            clock.
        commits: seconds from the sending of commit calls to their answers.
        operations: operations in each commit call.
    """

    __slots__ = (
        "_budget", "_clock", "_weight", "commits", "due", "handling", "operations", "queueing"
    )  # fmt: skip

    def __init__(self, clock: Clock) -> None:
        """Measure with what a worker knows of Redis' clock."""
        self._clock = clock
        self._budget = BUDGET
        self._weight = self.due = 1
        self.handling = Histogram()
        self.queueing = Histogram()
        self.commits = Histogram()
        self.operations = Histogram(COUNTS)

    def refill(self) -> None:
        """Look at messages one by one again; called from time to time.

        The next one stands for those that were passed over until now, too.
        """
        self._budget = BUDGET
        self._weight -= self.due - 1
        self.due = 1

    def opened(self, delivery: Delivery) -> None:
        """Measure a message that was taken, and choose the next one to be measured."""
        weight = self._weight
        if delivery.attempt == 1:
            milliseconds, _, _ = delivery.entry.id.partition("-")
            waited_ms = self._clock.redis_ms() - int(milliseconds)
            self.queueing.observe(max(0, waited_ms) / 1000, weight)
        delivery.timer = _Handling(self.handling, weight, delivery.timer)
        if self._budget > 0:
            self._budget -= 1
            self._weight = 1
        else:
            self._weight = STRIDE
        self.due = self._weight

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """It is counted elsewhere, and its time is taken all the same."""

    def answered(self, sent_at_s: float, operations: list[int]) -> None:
        """Commit calls that shared a write were answered.

        Args:
            sent_at_s: monotonic time of the write.
            operations: how many each of the calls carried.
        """
        taken_s = time.monotonic() - sent_at_s
        for count in operations:
            self.commits.observe(taken_s)
            self.operations.observe(count)


class _Handling:
    """Stands in a delivery's ``timer`` while it is handled, and measures how long that takes."""

    __slots__ = ("_histogram", "_since_s", "_timer", "_weight")

    def __init__(self, histogram: Histogram, weight: int, timer: Timer | None) -> None:
        self._histogram = histogram
        self._weight = weight
        self._timer = timer
        self._since_s = time.monotonic()

    def cancel(self) -> None:
        """The attempt is over."""
        self._histogram.observe(time.monotonic() - self._since_s, self._weight)
        if self._timer is not None:
            self._timer.cancel()
