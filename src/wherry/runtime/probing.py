"""Probing: runs suspects one at a time, each alone in the process; all others wait meanwhile.

A suspect waits among the deferred ids of its scope until it is called, and then in its lane for
its turn. A *stop* lets nothing start, waits until nothing runs, and probes those that are ready.
A probe begins with its mark, acknowledged by Redis, and ends when what became of it is
acknowledged: a process that dies in between has died of the suspect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..broker.attempts import pack_row
from ..broker.commits import Fail
from ..config import Config
from ..engine.suspects import Sharing, probe_limit_s
from ..hooks import Hooks
from ..model import AttemptsRow, EntryId
from ..tracing import trace_of
from .committer import Committer
from .delivery import Delivery
from .holding import Suspect, Track
from .inbox import Item
from .lane import Lane
from .life import LaneState
from .policy import Gate
from .pool import Pool

CALLED_AT_ONCE = 16
"""So many suspects may have a lane, and with it room that others could use."""
SLICE_S = 1.0
"""A stop that lasts longer begins no further probe."""
ROW_BYTES = 256


class Probing:
    """Implements `wherry.runtime.policy.Gate`; it stands open, and aside, without suspects."""

    def __init__(
        self,
        config: Config,
        pool: Pool,
        committer: Committer,
        refill: Callable[[Track], None],
        set_gate: Callable[[Gate | None], None],
        hooks: Hooks,
    ) -> None:
        """Share the lanes of a pool; ``refill`` fetches deferred entries of a scope."""
        self._config = config
        self._pool = pool
        self._committer = committer
        self._refill = refill
        self._set_gate = set_gate
        self._hooks = hooks
        self._sharing = Sharing(config.drain_timeout_s)
        self._suspects: dict[Suspect, None] = {}  # in the order in which they were met
        self._probed: tuple[Suspect, Lane] | None = None
        self._running: Suspect | None = None  # the probed one, once its mark is written
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Event()

    def may_enter(self, track: Track, entry_id: EntryId) -> bool:
        """Whether a suspect that was read may go into a lane; otherwise it is called later."""
        suspects = track.holding.suspects
        suspect = suspects.get(entry_id)
        if suspect is None:
            suspect = suspects[entry_id] = Suspect(track.holding, track.scope_id, entry_id)
            self._suspects[suspect] = None
            self._set_gate(self)
            self.look()
        return suspect.is_called

    def look(self) -> None:
        """Something has changed that a stop, or a probe, may wait for."""
        if self._suspects:
            self._changed.set()

    def admits(self, lane: Lane, item: Item) -> bool:
        """Whether a lane may start on an item now."""
        suspect = _suspect_of(lane, item)
        if suspect is None:
            return self._open.is_set()
        if self._is_probed(suspect):
            return True
        suspect.lane = lane
        self.look()
        return False

    async def enter(self, lane: Lane) -> None:
        """Return when a lane may call the application."""
        suspect = _suspect_of(lane, lane.input_queue.peek())
        if suspect is None:
            await self._open.wait()
            return
        while not self._is_probed(suspect):
            suspect.lane = lane
            self.look()
            await suspect.turn.wait()

    def ended(self, lane: Lane) -> None:
        """A lane is done; before its partition is handed on, no mark may be left."""
        for suspect in self._suspects:
            if suspect.lane is lane:
                suspect.lane = None
        if self._probed is not None and self._probed[1] is lane:
            self._unmark(self._probed[0])
        self.look()

    async def run(self) -> None:
        """Probe suspects as they come, for ever."""
        while True:
            await self._until(lambda: bool(self._suspects))
            # Normal work goes first.
            await asyncio.sleep(self._sharing.share_s)
            self._call()
            await self._until(lambda: self._next() is not None or not self._suspects)
            if self._next() is not None:
                await self._stop()
            if not self._suspects:
                self._set_gate(None)

    def _call(self) -> None:
        """Let the next suspects go into lanes, and forget those that need no probe any more."""
        for suspect in list(self._suspects):
            if suspect.row is None or suspect.holding.ledger.is_draining:
                del self._suspects[suspect]
        for suspect in list(self._suspects)[:CALLED_AT_ONCE]:
            if not suspect.is_called:
                suspect.is_called = True
                track = suspect.holding.track(suspect.scope_id)
                track.is_parked = False
                self._refill(track)

    def _next(self) -> Suspect | None:
        """The first suspect that is ready; those that are done with are called off first."""
        self._call()
        return next((one for one in self._suspects if one.lane is not None), None)

    async def _stop(self) -> None:
        """Let nothing start, and probe suspects when all is quiet."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._open.clear()
        is_quiet = False
        try:
            is_quiet = await self._until(self._is_quiet, self._sharing.patience_s)
            if not is_quiet and self._sharing.is_at_end:
                self._cut_off()
                is_quiet = await self._until(self._is_quiet, self._config.end_timeout_s)
            until_s = loop.time() + SLICE_S
            while is_quiet and loop.time() < until_s and (suspect := self._next()) is not None:
                await self._probe(suspect)
                is_quiet = self._is_quiet()
        finally:
            self._open.set()
            self._sharing.stopped(loop.time() - began_s, was_quiet=is_quiet)
            self._wake_all()

    async def _probe(self, suspect: Suspect) -> None:
        """Run one suspect, marked, until it is known what became of it."""
        lane, row = suspect.lane, suspect.row
        assert lane is not None, "it is ready"
        assert row is not None, "it is not finished"
        suspect.lane = None
        self._tell(suspect, row)  # before the mark, or a process could die of it without a word
        self._write(suspect, row._replace(probe=suspect.holding.ledger.token))
        self._probed = (suspect, lane)
        await self._until(lambda: self._is_written(suspect))
        if _is_marked(suspect) and lane.is_open and not suspect.holding.ledger.is_draining:
            limit_s = probe_limit_s(self._config.probe_s, row.crashes)
            self._begin(suspect, lane)
            if not await self._until(lambda: not _is_marked(suspect), limit_s):
                self._tell_of_overrun(suspect, limit_s)
        self._probed = self._running = None
        self._unmark(suspect)
        await self._until(lambda: self._is_written(suspect))

    def _begin(self, suspect: Suspect, lane: Lane) -> None:
        self._running = suspect
        suspect.turn.set()
        suspect.turn.clear()
        lane.wake()  # it may wait in receive(), if its instance was there before

    def _is_probed(self, suspect: Suspect) -> bool:
        """Whether it is a suspect's turn; over as soon as its attempt has failed."""
        return self._running is suspect and _is_marked(suspect)

    def _write(self, suspect: Suspect, row: AttemptsRow) -> None:
        holding, entry_id, scope_id = suspect.holding, suspect.entry_id, suspect.scope_id
        holding.attempts[entry_id] = row
        operation = Fail(entry_id, scope_id, pack_row(row), ROW_BYTES)
        self._committer.put(holding.track(scope_id), operation)

    def _unmark(self, suspect: Suspect) -> None:
        row = suspect.row
        if row is not None and row.probe:
            self._write(suspect, row._replace(probe=""))

    def _is_written(self, suspect: Suspect) -> bool:
        """Whether everything of its scope is acknowledged, or never will be."""
        track = suspect.holding.tracks.get(suspect.scope_id)
        return suspect.holding.is_lost or track is None or not track.outstanding

    def _lanes(self) -> list[Lane]:
        return [*self._pool.lanes.values(), *self._pool.leaving]

    def _is_quiet(self) -> bool:
        return not any(_runs(lane) for lane in self._lanes())

    def _cut_off(self) -> None:
        """What does not come to rest is handled again later, as after a drain's deadline."""
        for lane in self._lanes():
            if _runs(lane):
                self._hooks.warn(
                    "a running message is cut off, as one must run alone", scope=str(lane.scope_id)
                )
                self._pool.end(lane)

    def _wake_all(self) -> None:
        for lane in list(self._pool.lanes.values()):
            if lane.input_queue and lane.instance is not None and lane.instance.is_waiting():
                lane.wake()

    async def _until(self, condition: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Wait for a condition; False if it does not come true in time."""
        try:
            async with asyncio.timeout(limit_s or None):
                while True:
                    # Cleared before looking: what changes while we look is not lost.
                    self._changed.clear()
                    if condition():
                        return True
                    await self._changed.wait()
        except TimeoutError:
            return False

    def _tell(self, suspect: Suspect, row: AttemptsRow) -> None:
        self._hooks.warn(
            "a message that may have killed a process is run alone",
            partition=suspect.holding.partition,
            scope=suspect.scope_id,
            entry=suspect.entry_id,
            attempt=row.attempts + 1,
            count=row.crashes,
            **_trace_of(suspect),
        )

    def _tell_of_overrun(self, suspect: Suspect, limit_s: float) -> None:
        self._hooks.warn(
            "a message that runs alone takes long; it goes on beside the others",
            partition=suspect.holding.partition,
            scope=suspect.scope_id,
            entry=suspect.entry_id,
            duration_s=limit_s,
            **_trace_of(suspect),
        )


def _suspect_of(lane: Lane, item: Item | None) -> Suspect | None:
    track: Track | None = lane.tracking
    if track is None or not isinstance(item, Delivery):
        return None
    return track.holding.suspects.get(item.entry.id)


def is_marked(lane: Lane, item: Item | None) -> bool:
    """Whether an item is a suspect whose probe has begun, in this tenure."""
    suspect = _suspect_of(lane, item)
    return suspect is not None and _is_marked(suspect)


def _trace_of(suspect: Suspect) -> dict[str, str]:
    """What a log line says of the trace of the message, while its lane has it."""
    lane = suspect.lane
    if lane is None:
        return {}
    unfinished = lane.instance.unfinished if lane.instance is not None else ()
    for item in (*unfinished, *lane.input_queue.items):
        if isinstance(item, Delivery) and item.entry.id == suspect.entry_id:
            return trace_of(item.entry.extras.headers)
    return {}


def _is_marked(suspect: Suspect) -> bool:
    row = suspect.row
    return row is not None and row.probe == suspect.holding.ledger.token


def _runs(lane: Lane) -> bool:
    """Whether the application is at work in a lane: at a message, or on its way to the first."""
    if lane.state in (LaneState.ABANDONED, LaneState.ENDED):
        return False
    instance = lane.instance
    is_starting = (
        instance is not None
        and not instance.is_closed
        and not instance.has_received
        and not instance.is_waiting()
    )
    return lane.is_busy or is_starting
