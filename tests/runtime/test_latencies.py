"""Latencies of the last beats, not of all times."""

from __future__ import annotations

from wherry.runtime.clock import Clock
from wherry.runtime.latencies import BEATS, Latencies
from wherry.runtime.meter import Meter


def test_only_what_came_in_the_last_beats_is_told():
    meter = Meter(Clock())
    meter.handling.observe(200.0)
    latencies = Latencies(meter)
    for _ in range(99):
        meter.handling.observe(0.0004)
    meter.handling.observe(0.04)
    for _ in range(BEATS):
        first = latencies.take()
        assert first["queueing_p50_us"] == first["queueing_p99_us"] == ""
        assert 0 < int(first["handling_p50_us"]) < int(first["handling_p99_us"]) == 500
    meter.handling.observe(0.04, weight=64)
    meter.queueing.observe(2.0)
    second = latencies.take()
    assert 25_000 <= int(second["handling_p50_us"]) <= int(second["handling_p99_us"]) <= 50_000
    assert 1_000_000 <= int(second["queueing_p50_us"]) <= 2_500_000
    for _ in range(BEATS - 1):
        assert latencies.take() == second
    assert set(latencies.take().values()) == {""}
