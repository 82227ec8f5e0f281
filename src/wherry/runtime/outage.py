"""Outage: how one loop of a worker bears that Redis fails it.

It is said once when it begins and once when it is over, with longer and longer pauses between.
What time does not mend, a refused login or command, ends the worker when it has lasted.
"""

from __future__ import annotations

import asyncio
import random

from ..errors import StoreRefused, WherryError
from ..hooks import Hooks

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 2.0
PATIENCE_S = 10.0
"""A password that is being changed is wrong for a moment."""


class Outage:
    """The troubles of one kind of traffic, one after another."""

    __slots__ = ("_company", "_hooks", "_pause_s", "_refused_since_s", "_since_s", "_what")

    def __init__(self, what: str, hooks: Hooks, company: set[Outage] | None = None) -> None:
        """Begin in good weather.

        Args:
            what: names the traffic in the log: "reading".
            hooks: reports.
            company: those of one kind that are in trouble now; the first of them tells of it, and
                the last that it is over.
        """
        self._company = set[Outage]() if company is None else company
        self._what = what
        self._hooks = hooks
        self._pause_s = 0.0
        self._since_s: float | None = None
        self._refused_since_s: float | None = None

    async def wait(self, error: WherryError) -> None:
        """Wait before the next try, each time longer.

        Raises:
            StoreRefused: this error, when there was no other for `PATIENCE_S`.
        """
        now_s = asyncio.get_running_loop().time()
        if not isinstance(error, StoreRefused):
            self._refused_since_s = None
        elif self._refused_since_s is None:
            self._refused_since_s = now_s
        elif now_s - self._refused_since_s > PATIENCE_S:
            raise error
        report = self._hooks.detail
        if self._since_s is None:
            self._since_s = now_s
            report = self._hooks.detail if self._company else self._hooks.warn
            self._company.add(self)
        self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        report(f"{self._what} waits for Redis", reason=str(error), duration_s=self._pause_s)
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))

    def over(self) -> None:
        """Redis has answered."""
        if self._since_s is not None:
            duration_s = asyncio.get_running_loop().time() - self._since_s
            self.leave()
            report = self._hooks.detail if self._company else self._hooks.life
            report(f"{self._what} goes on", duration_s=round(duration_s, 3))
            self._since_s = self._refused_since_s = None
            self._pause_s = 0.0

    def leave(self) -> None:
        """It is no more to be told of: whoever met it has ended."""
        self._company.discard(self)
