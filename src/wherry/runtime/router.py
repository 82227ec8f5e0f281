"""Router: from a raw entry to the inbox of its scope's lane.

What cannot be handled goes to the dead letters, what has expired is finished, what a hot scope
has no room for is deferred.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..broker.commits import Bury
from ..broker.entries import read_entry, read_id
from ..broker.streams import RawEntry
from ..config import Config
from ..hooks import Hooks
from ..model import PLAIN, BadEntry, Entry, EntryId, ScopeId
from .clock import Clock
from .committer import Committer
from .delivery import deliver, expiry_of, has_expired
from .holding import Holding, Track
from .lane import OPEN
from .pasts import Fate, Pasts
from .pool import Face
from .window import Room


class Router:
    """Routes what the reader reads."""

    def __init__(
        self,
        config: Config,
        face: Face,
        committer: Committer,
        clock: Clock,
        hooks: Hooks,
    ) -> None:
        """Route into the lanes behind ``face``; ``pasts`` must be set before the first entry."""
        self.pasts: Pasts
        self._config = config
        self._most = config.in_flight_per_partition
        self._message_bytes, self._scope_waiting = config.message_bytes, config.scope_waiting
        self._face = face
        self._committer = committer
        self._clock = clock
        self._hooks = hooks

    def route(self, holding: Holding, raw: Sequence[RawEntry], room: Room) -> bool:
        """Take entries of one partition in the order in which they stand in the stream.

        Returns:
            Whether all were taken; those that there is no room for are left, to be read again.
        """
        ledger, tracks, deferred = holding.ledger, holding.tracks, holding.deferred
        partition, held, tombstones = ledger.partition, ledger.held, ledger.tombstones
        limit_bytes, scope_waiting = self._message_bytes, self._scope_waiting
        has_past = holding.attempts or holding.takeover
        most = free = min(room.entries, self._most - len(held))
        free_bytes, cursor = room.size_bytes, ledger.cursor
        taken: dict[EntryId, int] = {}
        try:
            for raw_id, flat in raw:
                entry_id = read_id(raw_id)
                if entry_id not in held and entry_id not in tombstones:
                    if free <= 0 or free_bytes <= 0:
                        return False
                    entry = read_entry(partition, entry_id, flat, limit_bytes, tracks)
                    track = tracks.get(entry.scope_id)
                    if (
                        track is not None
                        and (lane := track.lane) is not None
                        and lane.state is OPEN
                        and len(lane.input_queue.items) < scope_waiting
                        and track.refilling is None
                        and not (deferred.count and deferred.has(track.scope_id))
                        and not has_past
                        and type(entry) is Entry
                        and entry.extras is PLAIN
                    ):
                        # Nothing stands in its way: so it is with nearly all.
                        taken[entry_id] = entry.size_bytes
                        lane.input_queue.put_nowait(deliver(entry))
                    elif not self._take(holding, entry):
                        cursor = entry_id
                        continue
                    free -= 1
                    free_bytes -= entry.size_bytes
                cursor = entry_id
            return True
        finally:
            ledger.take(taken, cursor)
            room.entries -= most - free
            room.size_bytes = free_bytes

    def _take(self, holding: Holding, entry: Entry | BadEntry) -> bool:
        """Take an entry in hand; False if its scope has no room for it."""
        ledger = holding.ledger
        if isinstance(entry, BadEntry):
            ledger.hold(entry.id, entry.size_bytes)
            self._bury(holding, entry)
            return True
        track = holding.track(entry.scope_id)
        lane = track.lane
        if (
            (lane is not None and len(lane.input_queue.items) >= self._scope_waiting)
            or track.refilling is not None
            or (holding.deferred.count and holding.deferred.has(track.scope_id))
        ):
            holding.deferred.add(entry.scope_id, entry.id)
            return False
        ledger.hold(entry.id, entry.size_bytes)
        if not self.deliver(track, entry):
            ledger.forget(entry.id)
            holding.deferred.add(entry.scope_id, entry.id)
            return False
        return True

    def refill(self, track: Track, raw: RawEntry) -> bool:
        """Take an entry whose id was deferred; the ledger holds it already.

        Returns:
            False if it must be deferred again.
        """
        entry_id = read_id(raw[0])
        entry = read_entry(track.holding.partition, entry_id, raw[1], self._message_bytes)
        if isinstance(entry, BadEntry):
            self._bury(track.holding, entry)
            return True
        return self.deliver(track, entry)

    def deliver(self, track: Track, entry: Entry) -> bool:
        """Put an entry into its lane's inbox, unless it has expired or is given up.

        Returns:
            False if it must wait among the deferred ids.
        """
        holding = track.holding
        if (
            entry.extras.expires_unix_ms
            and has_expired(entry, self._clock.redis_ms())
            and not self.pasts.is_held(holding, entry.id)
        ):
            self._committer.put(track, expiry_of(entry))
            return True
        delivery = deliver(entry)
        if holding.attempts or holding.takeover is not None:
            fate = self.pasts.resume(track, delivery)
            if fate is not Fate.DELIVER:
                return fate is Fate.FINISH
        lane = track.lane
        if lane is not None and lane.is_open:
            lane.input_queue.put_nowait(delivery)
            return True
        scope = {
            "type": "channel",
            "channel": self._config.channel,
            "scope_id": entry.scope_id,
        }
        self._face.get_or_create_application_instance(entry.scope_id, scope).put_nowait(delivery)
        return True

    def _bury(self, holding: Holding, entry: BadEntry) -> None:
        self._hooks.warn(
            "an entry that cannot be read goes to the dead letters",
            partition=holding.partition,
            entry=entry.id,
            reason=entry.reason,
        )
        scope_id = entry.scope_id if entry.scope_id.isprintable() else ScopeId("")
        operation = Bury(
            entry.id,
            scope_id,
            f"Malformed: {entry.reason}",
            inbox=entry.inbox,
            size_bytes=entry.size_bytes,
        )
        self._committer.put(holding.track(scope_id), operation)
