"""Recheck: once a minute, whether a quiet partition holds what its cursor has passed."""

from __future__ import annotations

import asyncio
import itertools

from ..broker.link import Link
from ..broker.wire import Keys
from ..errors import WherryError
from ..model import EntryId
from .holding import Holdings

RECHECK_S = 60.0
_TURNS = 6


async def recheck(link: Link, keys: Keys, holdings: Holdings) -> None:
    """Look for ever; what is found is read anew, and what could not be read is tried again.

    At some of them at a time: all at once would be more than an idle worker should ask.
    """
    for turn in itertools.cycle(range(_TURNS)):
        await asyncio.sleep(RECHECK_S / _TURNS)
        quiet = [
            holding
            for holding in holdings.all()
            if holding.partition % _TURNS == turn
            and not holding.ledger.in_flight
            and not holding.deferred.count
        ]
        if not quiet:
            continue
        cursors: list[EntryId] = [holding.ledger.cursor for holding in quiet]
        names = [keys.entries(holding.partition) for holding in quiet]
        try:
            sizes = await link.calls([("XLEN", name) for name in names])
        except WherryError:
            continue
        for holding, cursor, size in zip(quiet, cursors, sizes, strict=True):
            if isinstance(size, Exception):
                continue
            if holding.ledger.is_unreadable:
                holding.ledger.mark(is_unreadable=False)
                holdings.changed.set()
            if size and holding.ledger.cursor == cursor and not holding.ledger.in_flight:
                holding.ledger.rewind()
                holdings.changed.set()
