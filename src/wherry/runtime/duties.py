"""Duties: what the parts of a worker ask of the whole: describe it, give up, look after leases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..config import Config
from ..model import Partition, Token
from .handoff import HandOff
from .holding import Holding, Holdings
from .parked import Parked
from .pool import Pool
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
    """

    def __init__(
        self,
        pool: Pool,
        holdings: Holdings,
        settlement: Settlement,
        handoff: HandOff,
        renewer: Renewer,
        config: Config,
        about: dict[str, str],
    ) -> None:
        """Act for one run of a worker.

        Args:
            pool: its lanes.
            holdings: its partitions.
            settlement: what to do when they are lost.
            handoff: what to do when they are given up.
            renewer: told which leases are held whenever that has changed, and at each beat.
            config: limits of draining and idling.
            about: what never changes of the worker.
        """
        self.parked: Parked
        self._pool = pool
        self._holdings = holdings
        self._settlement = settlement
        self._handoff = handoff
        self._renewer = renewer
        renewer.on_lost = self.lost
        self._config = config
        self._about = about

    def describe(self) -> dict[str, str]:
        """What the worker says of itself in its member hash."""
        in_flight, _ = self._holdings.in_flight()
        return {
            **self._about,
            "partitions": str(len(self._holdings)),
            "in_flight": str(in_flight),
            "instances": str(len(self._pool.lanes)),
        }

    def has_room(self) -> bool:
        """Whether the pool takes another scope."""
        return not self._pool.is_full

    def is_settling(self) -> bool:
        """Whether answers of commits, which make room, are on their way."""
        return not self._settlement.committer.is_idle

    def history_changed(self) -> None:
        """Redis may have gone back in time: nothing in memory can be trusted."""
        for holding in self._holdings.all():
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
