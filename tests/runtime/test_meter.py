"""A meter counts each message, though it looks at few of a flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.runtime.tracking import delivery
from wherry.engine.histogram import Histogram
from wherry.runtime.clock import Clock
from wherry.runtime.delivery import Delivery
from wherry.runtime.meter import BUDGET, STRIDE, Meter


def flood(meter: Meter, count: int) -> list[Delivery]:
    """Open so many as `Tracked.begin` does; returns those that were looked at."""
    opened = [delivery("s", number) for number in range(count)]
    for one in opened:
        meter.due -= 1
        if not meter.due:
            meter.opened(one)
    return [one for one in opened if one.timer is not None]


def count_of(histogram: Histogram) -> int:
    return histogram.cumulative()[-1]


@pytest.fixture
def meter() -> Meter:
    return Meter(Clock())


def on_loop(test: Callable[[], None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


def test_few_messages_are_measured_one_by_one(meter: Meter):
    def test() -> None:
        looked_at = flood(meter, BUDGET)
        assert len(looked_at) == BUDGET == count_of(meter.queueing)
        assert count_of(meter.handling) == 0
        for one in looked_at:
            one.stop_timer()
        assert count_of(meter.handling) == BUDGET

    on_loop(test)


def test_each_that_is_measured_stands_for_those_passed_over(meter: Meter):
    def test() -> None:
        looked_at = flood(meter, BUDGET + 10 * STRIDE + 5)
        assert len(looked_at) <= BUDGET + 11
        for one in looked_at:
            one.stop_timer()
        left = BUDGET + 10 * STRIDE + 5 - count_of(meter.handling)
        assert 0 <= left < STRIDE
        meter.refill()
        [first] = flood(meter, 1)
        first.stop_timer()
        for histogram in (meter.handling, meter.queueing):
            assert count_of(histogram) == BUDGET + 10 * STRIDE + 6
        meter.refill()
        flood(meter, 1)
        assert count_of(meter.queueing) == BUDGET + 10 * STRIDE + 7

    on_loop(test)


def test_only_a_first_attempt_has_waited_in_the_queue(meter: Meter):
    def test() -> None:
        again = delivery("s", 1)
        again.attempt = 2
        meter.opened(again)
        assert count_of(meter.queueing) == 0

    on_loop(test)


def test_timer_that_was_there_is_told_too(meter: Meter):
    class Timer:
        is_cancelled = False

        def cancel(self) -> None:
            self.is_cancelled = True

    timer, one = Timer(), delivery("s", 1)
    one.timer = timer
    on_loop(lambda: meter.opened(one))
    one.stop_timer()
    assert timer.is_cancelled
    assert count_of(meter.handling) == 1


def test_waiting_is_counted_by_redis_clock(meter: Meter):
    def test() -> None:
        clock = Clock()
        clock.start()
        clock.set(1_700_000_000_500)
        measured = Meter(clock)
        measured.opened(delivery("s", 1_700_000_000_000))
        assert measured.queueing.total == pytest.approx(0.5, abs=0.1)

    on_loop(test)
