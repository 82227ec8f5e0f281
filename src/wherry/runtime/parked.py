"""Parked: scopes whose head failed too often, until it is retried or dropped from outside."""

from __future__ import annotations

from collections.abc import Callable

from ..broker.attempts import read_row
from ..broker.leases import Leases
from .holding import Holding, Holdings, Track


class Parked:
    """Looks whether held entries were released; where none is held it costs nothing."""

    __slots__ = ("_holdings", "_leases", "_refill")

    def __init__(self, leases: Leases, holdings: Holdings, refill: Callable[[Track], None]) -> None:
        """Look at a worker's holdings; ``refill`` fetches deferred entries of a scope."""
        self._leases = leases
        self._holdings = holdings
        self._refill = refill

    async def look(self) -> None:
        """Let the scopes go on whose heads are not held any more; raises as `Link.call` does."""
        for holding in self._holdings.all():
            if holding.held:
                await self._look_at(holding)

    async def _look_at(self, holding: Holding) -> None:
        # Only what was written before we ask: an older answer must not release it.
        held = [
            entry_id
            for entry_id, scope_id in holding.held.items()
            if not holding.track(scope_id).outstanding
        ]
        if not held:
            return
        rows = await self._leases.rows(holding.partition, held)
        for entry_id, packed in zip(held, rows, strict=True):
            row = None if packed is None else read_row(packed)
            if (row is None or not row.is_held) and not holding.is_lost:
                track = holding.track(holding.held[entry_id])
                holding.forget(entry_id)
                track.is_parked = False
                self._refill(track)
                holding.drop_if_unused(track)
