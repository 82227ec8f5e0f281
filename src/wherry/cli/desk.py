"""Desk: looks at a fleet again and again, as fast as the keys say, and keeps what was seen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..broker.connect import Store
from ..broker.control import Order
from ..broker.link import Link
from ..errors import StoreRefused, StoreUnavailable
from .lookup import Scopes, listing
from .overview import View
from .show import read_status
from .trail import Trail

SCOPES_EVERY_S = 4.0
"""Workers go through all their scopes to answer, so that they are asked no more often."""
EVERY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""What the keys + and - choose from."""
_ANSWER_WITHIN_S = 1.0
_SCOPES_ASKED = 40
_RETRY_S = (0.5, 5.0)
_MAY_NOT_ASK = "not known: this user may not ask workers; it takes +publish and +blpop"


class Desk:
    """What has been seen, and what the keys have chosen.

    Attributes:
        changed: set when the screen is to be drawn anew.
        every_s: time between two looks.
        has_ended: q was pressed.
    """

    __slots__ = (
        "_going", "_hurry", "_link", "_namespace", "_store", "_trail", "_view",
        "changed", "every_s", "has_ended",
    )  # fmt: skip

    def __init__(self, store: Store, link: Link, namespace: str, every_s: float) -> None:
        """Look at a namespace of a store."""
        self.changed = asyncio.Event()
        self.every_s = every_s
        self.has_ended = False
        self._store = store
        self._link = link
        self._namespace = namespace
        self._trail = Trail()
        self._view: View | None = None
        self._hurry = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()

    @property
    def view(self) -> View:
        """What there is to be seen; there was a look."""
        assert self._view is not None
        return self._view

    @property
    def keys(self) -> str:
        """What the keys do now."""
        pause = "p pause" if self._going.is_set() else "p go on (paused)"
        return f"q quit  {pause}  + - every {self.every_s:g} s"

    def press(self, key: str) -> None:
        """Do what a key says; "" stands for a keyboard that is gone."""
        if key in ("q", "Q", ""):
            self.has_ended = True
        elif key == "p" and self._going.is_set():
            self._going.clear()
        elif key == "p":
            self._going.set()
            self._hurry.set()
        elif key in ("+", "="):
            self.every_s = slower(self.every_s)
        elif key == "-":
            self.every_s = faster(self.every_s)
            self._hurry.set()
        self.changed.set()

    async def look(self) -> None:
        """Look at workers and partitions.

        Raises:
            WherryError: as `read_status` says.
        """
        status = await read_status(self._link, self._store, self._namespace)
        self._trail.take(status, time.monotonic())
        clock = time.strftime("%H:%M:%S")
        if self._view is None:
            self._view = View(status=status, trail=self._trail, clock=clock)
        else:
            self._view = replace(self._view, status=status, clock=clock, trouble="")

    async def ask(self) -> None:
        """Ask the workers for their slowest and fullest scopes; there was a look.

        A right that is missing is told in their place.

        Raises:
            WherryError: as `wherry.broker.control.ask` says, but for that.
        """
        try:
            slowest, fullest = await self._scopes(Order.AGE), await self._scopes(Order.WAITING)
        except StoreRefused:
            self._view = replace(self.view, scopes_note=_MAY_NOT_ASK)
        else:
            self._view = replace(self.view, slowest=slowest, fullest=fullest, scopes_note="")

    async def keep_looking(self) -> None:
        """Look for ever; an outage is told and waited for.

        Raises:
            WherryError: as `look` and `ask` say, but for that.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self.look, 0.0), name="look:top")
            tasks.create_task(self._repeat(self.ask, SCOPES_EVERY_S), name="ask:top")

    async def _scopes(self, order: Order) -> Scopes:
        where = (self._store, self._namespace)
        return await listing(*where, order, _SCOPES_ASKED, _ANSWER_WITHIN_S)(self._link)

    async def _repeat(self, look: Callable[[], Awaitable[None]], least_s: float) -> None:
        retry_s, longest_s = _RETRY_S
        while True:
            await self._going.wait()
            try:
                await look()
            except StoreUnavailable as error:
                self._view = replace(self.view, trouble=f"{error}; looking again")
                pause_s, retry_s = retry_s, min(2 * retry_s, longest_s)
            else:
                pause_s, retry_s = max(least_s, self.every_s), _RETRY_S[0]
            self.changed.set()
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()


def slower(every_s: float) -> float:
    """The next longer time between two looks, if there is one."""
    return next((one for one in EVERY_S if one > every_s), every_s)


def faster(every_s: float) -> float:
    """The next shorter one, if there is one."""
    return next((one for one in reversed(EVERY_S) if one < every_s), every_s)
