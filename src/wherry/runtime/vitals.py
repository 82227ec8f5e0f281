"""Vitals: what probes and metrics see of one worker.

Nothing is counted for them: they look at what the worker knows anyhow, from another thread, at
plain numbers that are read in one step. What must be measured the `Meter` measures, and the pulse
tells whether the event loop turns.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import NamedTuple

from ..config import Config
from ..model import Partition
from .clock import Clock
from .holding import Holdings
from .latencies import Latencies
from .meter import Meter
from .parts import Links, Parts
from .pool import Pool
from .tracked import Tracked

PULSE_S = 0.25
LAG_WINDOW_S = 10.0


class Organs(NamedTuple):
    """What is looked at in one run of a worker."""

    pool: Pool
    tracked: Tracked
    holdings: Holdings
    clock: Clock
    links: Links
    parts: Parts


class Vitals:
    """Looks at one worker; `attach` and `pulse` belong to its loop, the rest to any thread.

    Attributes:
        worker_id: of the worker.
        namespace: that it serves.
        pid: of its process.
        meter: measures, from the first run on.
        organs: of the run, None before and after it.
        stalls: how often the loop did not turn for longer than half a lease.
    """

    def __init__(self, worker_id: str, config: Config) -> None:
        """Nothing has turned yet; the time to the first turn counts like that between turns."""
        self.worker_id = worker_id
        self.namespace = config.namespace
        self.pid = os.getpid()
        self.meter: Meter | None = None
        self.organs: Organs | None = None
        self.stalls = 0
        self._stall_s = config.lease_s
        self._turned_at_s = time.monotonic()
        self._beat_age_s = 0.0
        self._lags_s = (0.0, 0.0)  # greatest of the window before, and of this one
        self._window_ends_at_s = 0.0

    def attach(self, organs: Organs) -> Meter:
        """A run begins: look at it; returns what is to look at its messages."""
        if self.meter is None:
            self.meter = Meter(organs.clock)
        organs.parts.committer.meter = self.meter
        organs.parts.duties.about.latencies = Latencies(self.meter)
        self.organs = organs
        return self.meter

    def detach(self) -> None:
        """It has ended."""
        self.organs = None

    async def pulse(self) -> None:
        """Turn with the loop, until cancelled."""
        while True:
            due_at_s = time.monotonic() + PULSE_S
            self._turned_at_s = due_at_s - PULSE_S
            if self.organs is not None:
                self._beat_age_s = self.organs.clock.age_s()
            if self.meter is not None:
                self.meter.refill()
            await asyncio.sleep(PULSE_S)
            self._note_lag(time.monotonic() - due_at_s)

    def _note_lag(self, lag_s: float) -> None:
        now_s = time.monotonic()
        before_s, here_s = self._lags_s
        if now_s > self._window_ends_at_s:
            self._window_ends_at_s = now_s + LAG_WINDOW_S
            before_s, here_s = here_s, 0.0
        self._lags_s = (before_s, max(here_s, lag_s))
        if lag_s > self._stall_s / 2:
            self.stalls += 1

    def loop_lag_s(self) -> float:
        """By how much the loop was late at most in the last ten seconds or so."""
        overdue_s = time.monotonic() - self._turned_at_s - PULSE_S
        return max(0.0, overdue_s, *self._lags_s)

    def why_not_live(self) -> list[str]:
        """What speaks against it that the loop turns; nothing, if it does."""
        silent_s = time.monotonic() - self._turned_at_s
        if silent_s > self._stall_s:
            return [f"the event loop has not turned for {silent_s:.1f} s"]
        return []

    def why_not_ready(self) -> list[str]:
        """What keeps the worker from claiming and reading; nothing, if it can."""
        reasons = self.why_not_live()
        organs = self.organs
        if organs is None or not organs.parts.membership.joined.is_set():
            return [*reasons, "the worker has not joined its fleet"]
        if organs.parts.membership.is_stopping:
            reasons.append("the worker is stopping")
        silent_s = self._beat_age_s + time.monotonic() - self._turned_at_s
        if silent_s > self._stall_s:
            reasons.append(f"Redis has answered no beat for {silent_s:.1f} s")
        if not organs.parts.duties.can_claim():
            reasons.append("Redis does not answer reads")
        return reasons

    def owned(self) -> list[Partition]:
        """The partitions that it owns."""
        return [] if self.organs is None else [one.partition for one in self.organs.holdings.all()]

    def reconnects(self) -> int:
        """Connections made anew, of those two of which there is one at a time, in this run."""
        if self.organs is None:
            return 0
        links = self.organs.links
        return sum(max(0, one.connects - 1) for one in (links.read, links.write))
