"""Loader: fetches durable states and deferred entries; what is asked in one tick shares a trip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..broker.cluster import is_cluster
from ..broker.link import Link
from ..broker.streams import RawEntry, fetch_entries, load_states
from ..broker.wire import Keys
from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from ..hooks import Hooks
from .holding import Track
from .outage import Outage
from .window import Window

REFILL_COUNT = 32
AGAIN_S = 0.2
"""What a node of a cluster did not answer is asked again after so long."""

Loaded = tuple[bytes, str]


class Loader:
    """Reads what was asked for, again and again until Redis answers."""

    def __init__(self, link: Link, keys: Keys, window: Window, hooks: Hooks) -> None:
        """Use a link; take no more deferred entries in hand than the window has room for.

        ``on_refill`` must be set before the first refill: it gets each fetched entry, and says
        False if its scope is parked.
        """
        self.on_refill: Callable[[Track, RawEntry], bool]
        self._link = link
        self._keys = keys
        self._window = window
        self._hooks = hooks
        self._states: list[tuple[Track, asyncio.Future[Loaded]]] = []
        self._refills: list[Track] = []
        self._work = asyncio.Event()

    async def load(self, track: Track) -> Loaded:
        """Packed durable state and version of a scope.

        Raises:
            StoreError: the key holds something else.
        """
        future: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._states.append((track, future))
        self._work.set()
        return await future

    def refill(self, track: Track) -> None:
        """Fetch the next deferred entries of a scope that is not parked."""
        if track.refilling is None and not track.is_parked and not track.holding.is_lost:
            most = max(1, min(REFILL_COUNT, self._window.free()))
            if track.careful:
                if not track.is_at_rest:
                    return
                track.careful, most = track.careful - 1, 1
            taken = track.holding.deferred.take(track.scope_id, most)
            if taken:
                for entry_id in taken:
                    track.holding.ledger.hold(entry_id, 0)
                track.refilling = list(taken)
                self._refills.append(track)
                self._work.set()

    async def run(self) -> None:
        """Serve what is asked for, for ever; raises as `Outage.wait` does."""
        outage = Outage("loading", self._hooks)
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._load_states()
                await self._fetch_deferred()
                outage.over()
            except (StoreUnavailable, StoreRefused, StoreError) as error:
                self._work.set()
                await outage.wait(error)

    async def _load_states(self) -> None:
        self._states = [one for one in self._states if not one[1].done()]
        asked = self._states[:1000]
        if not asked:
            return
        scopes = [(track.holding.partition, track.scope_id) for track, _ in asked]
        answers = await load_states(self._link, self._keys, scopes)
        away: list[tuple[Track, asyncio.Future[Loaded]]] = []
        for (track, future), answer in zip(asked, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, StoreUnavailable):
                away.append((track, future))  # its node of a cluster; the others need not wait
            elif isinstance(answer, WherryError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._states = self._states[len(asked) :]
        if self._states:
            self._work.set()
        if away:
            self._states += away
            self._try_later()

    def _try_later(self) -> None:
        asyncio.get_running_loop().call_later(AGAIN_S, self._work.set)

    async def _fetch_deferred(self) -> None:
        away: list[Track] = []
        while self._refills:
            track = self._refills[0]
            wanted = track.refilling
            if wanted is not None and not track.holding.is_lost:
                key = self._keys.entries(track.holding.partition)
                try:
                    found = await fetch_entries(self._link, key, wanted)
                except StoreUnavailable:
                    if not is_cluster(self._link):
                        raise
                    away.append(self._refills.pop(0))
                    continue
                # While we waited the scope may have been dropped and its ids let go.
                if track.refilling is wanted and not track.holding.is_lost:
                    self._refilled(track, found)
            self._refills.pop(0)
        if away:
            self._refills += away
            self._try_later()

    def _refilled(self, track: Track, found: list[RawEntry | None]) -> None:
        ledger, wanted = track.holding.ledger, track.refilling or []
        track.refilling = None
        for entry_id in wanted:
            ledger.forget(entry_id)
        most_bytes = ledger.in_flight_bytes + self._window.room().size_bytes
        for place, (entry_id, raw) in enumerate(zip(wanted, found, strict=True)):
            if raw is None:
                track.holding.forget(entry_id)
            else:
                if any(found[:place]) and ledger.in_flight_bytes >= most_bytes:
                    track.holding.deferred.give_back(track.scope_id, wanted[place:])
                    break
                ledger.hold(entry_id, sum(map(len, raw[1])))
                if not self.on_refill(track, raw):
                    ledger.forget(entry_id)
                    track.holding.deferred.give_back(track.scope_id, wanted[place:])
                    break
        if not any(found):
            # Nothing to wait for: no answer to a commit of theirs will ask for the next ones.
            self.refill(track)
            track.holding.drop_if_unused(track)
