"""Duties: what the parts of a worker ask of the whole: describe it, give up, look after leases."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from ..config import Config
from ..model import Partition, Token
from .about import About
from .control import Control
from .handoff import HandOff
from .holding import Holding, Holdings
from .parked import Parked
from .pause import Pause
from .pool import Pool
from .reads import MARGIN_S
from .renewal import Held
from .settlement import Settlement


class Renewer(Protocol):
    """Keeps leases."""

    on_lost: Callable[[Sequence[tuple[Partition, Token]]], None]

    async def look_after(self, held: Held) -> None:
        """These are the leases held now."""
        ...


class Duties:
    """Implements `wherry.runtime.membership.Actions` and `wherry.runtime.reader.Gate`.

    Attributes:
        parked: scopes that wait to be released; set for each run.
        about: describes the worker; the same.
        pause: lets nothing begin; the same.
        control: hears operators; the same.
    """

    def __init__(
        self,
        pool: Pool,
        holdings: Holdings,
        settlement: Settlement,
        handoff: HandOff,
        renewer: Renewer,
        config: Config,
    ) -> None:
        """Act for one run of a worker.

        Args:
            pool: its lanes.
            holdings: its partitions.
            settlement: what to do when they are lost.
            handoff: what to do when they are given up.
            renewer: told which leases are held whenever that has changed, and at each beat.
            config: limits of draining, idling and reading.
        """
        self.parked: Parked
        self.about: About
        self.pause: Pause
        self.control: Control
        self._pool = pool
        self._holdings = holdings
        self._settlement = settlement
        self._handoff = handoff
        self._renewer = renewer
        renewer.on_lost = self.lost
        self._config = config

    def describe(self) -> dict[str, str]:
        """What the worker says of itself in its member hash."""
        state = "paused" if self.pause.is_on else "running"
        if self._handoff.is_ending:
            state = "draining"
        return self.about.fields(can_claim=self.can_claim(), state=state)

    def heed_pause(self, since_unix_ms: int) -> bool:
        """Pause or go on, as the namespace says; whether that is news."""
        return self.pause.heed(since_unix_ms)

    def asked(self, request: bytes) -> None:
        """An operator asks for something."""
        self.control.asked(request)

    def can_claim(self) -> bool:
        """Whether what it claimed would be read: not while reads stay without an answer."""
        ears, limit_s = self._holdings.ears, self._config.block_s + MARGIN_S
        return not ears.is_overdue(time.monotonic(), limit_s)

    def has_room(self) -> bool:
        """Whether the pool takes another scope, and anything may be read."""
        return not (self._pool.is_full or self.pause.is_on)

    def is_shut(self) -> bool:
        """Whether the namespace is paused."""
        return self.pause.is_on

    def is_settling(self) -> bool:
        """Whether answers of commits, which make room, are on their way."""
        return not self._settlement.committer.is_idle

    async def answered(self, within_s: float) -> None:
        """Wait for the answer to a commit that is under way, at most so long."""
        await self._settlement.committer.answered(within_s)

    def history_changed(self, partitions: Container[Partition] | None = None) -> None:
        """Redis may have gone back in time: nothing in memory can be trusted.

        Args:
            partitions: whose data is meant; None: all.
        """
        for holding in self._holdings.all():
            if partitions is None or holding.partition in partitions:
                self._settlement.lose(holding, "Redis was restarted or replaced")

    async def held_changed(self) -> None:
        """Renew what is held, and end what has been idle for too long."""
        if self._config.idle_timeout_s:
            self._pool.end_idle(self._config.idle_timeout_s)
        held = [(one.partition, one.ledger.token) for one in self._holdings.all()]
        await self._renewer.look_after(tuple(held))
        await self.parked.look()

    async def hand_off(self, holding: Holding) -> None:
        """Give one holding up in good order."""
        await self._handoff.hand_off(holding, self._config.drain_timeout_s)

    def lost(self, leases: Sequence[tuple[Partition, Token]]) -> None:
        """These leases are no longer ours."""
        for partition, token in leases:
            holding = self._holdings.get(partition)
            if holding is not None and holding.ledger.token == token:
                self._settlement.lose(holding, "its lease was taken or removed")
