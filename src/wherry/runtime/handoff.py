"""Hand-off: give partitions up in good order.

What was read but not started stays in the stream; running messages finish up to a deadline;
then everything is written, the instances have ended, and the lease is released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..broker.leases import Leases
from ..errors import StoreError, StoreRefused, StoreUnavailable
from ..hooks import Hooks
from .clock import Clock
from .committer import Committer
from .delivery import Delivery
from .holding import Holding, Holdings
from .lane import Lane
from .life import LaneState
from .pool import Pool

FLUSH_AT_LEAST_S = 2.0


class HandOff:
    """Hands holdings on.

    Attributes:
        is_ending: everything is given up.
        has_cut_off: a running message was cut off, by the deadline or by `hurry`.
    """

    def __init__(
        self,
        pool: Pool,
        holdings: Holdings,
        committer: Committer,
        leases: Leases,
        clock: Clock,
        hooks: Hooks,
    ) -> None:
        """Work on the worker's holdings."""
        self.is_ending = False
        self.has_cut_off = False
        self._pool = pool
        self._holdings = holdings
        self._committer = committer
        self._leases = leases
        self._clock = clock
        self._hooks = hooks
        self._under_way = 0
        self._is_hurried = False

    async def hand_off(self, holding: Holding, limit_s: float) -> None:
        """Give one holding up; returns when it is released, lost, or abandoned.

        Args:
            holding: stops being read now.
            limit_s: for the messages that run.
        """
        self._close(holding)
        await self._finish(holding, self._leaving().get(holding, []), limit_s)

    def _close(self, holding: Holding) -> None:
        """Begin nothing of a holding any more, and end its lanes when they are done."""
        holding.ledger.drain()
        self._holdings.changed.set()
        holding.deferred.clear()
        for track in holding.tracks.values():
            track.refilling = None
        for lane in [track.lane for track in holding.tracks.values() if track.lane is not None]:
            self._let_go(holding, lane)
            self._pool.end(lane, at_once=False)

    def _leaving(self) -> dict[Holding, list[Lane]]:
        """The lanes that are ending, by their holding.

        What was abandoned may never end, and is not waited for; it cannot send any more.
        """
        leaving: dict[Holding, list[Lane]] = {}
        for lane in self._pool.leaving:
            if lane.tracking is not None and lane.state is not LaneState.ABANDONED:
                leaving.setdefault(lane.tracking.holding, []).append(lane)
        return leaving

    async def _finish(self, holding: Holding, leaving: Sequence[Lane], limit_s: float) -> None:
        self._under_way += 1
        try:
            await self._empty(holding, leaving, limit_s)
        finally:
            self._under_way -= 1
            self._holdings.changed.set()

    async def _empty(self, holding: Holding, leaving: Sequence[Lane], limit_s: float) -> None:
        until_s = self._clock.now_s() + limit_s
        await self._wait(leaving, until_s)
        if holding.is_lost:
            return
        running = [lane for lane in leaving if not lane.future.done()]
        if running:
            self.has_cut_off = True
            await self._cut_off(running)
        stuck = [lane for lane in running if not lane.future.done()]
        if stuck:
            # It cannot send any more, so that others may have the partition.
            for lane in stuck:
                self._holdings.avoid(holding.partition, lane)
            self._hooks.warn(
                "an application does not end when it is cancelled; its partition is avoided",
                partition=holding.partition,
                count=len(stuck),
            )
        try:
            async with asyncio.timeout(max(until_s - self._clock.now_s(), FLUSH_AT_LEAST_S)):
                await self._committer.flush(holding)
        except TimeoutError:
            self.has_cut_off = True
            self._give_up(holding, "what it did could not be written in time")
            return
        await self._release(holding)

    def _give_up(self, holding: Holding, reason: str) -> None:
        """Leave a partition to the end of its lease."""
        self._hooks.warn(
            "a partition is left to its lease", partition=holding.partition, reason=reason
        )
        self._committer.discard(holding)
        self._holdings.remove(holding)

    def _let_go(self, holding: Holding, lane: Lane) -> None:
        """What waits in a lane stays in the stream."""
        for item in lane.input_queue.drain():
            if isinstance(item, Delivery):
                holding.ledger.forget(item.entry.id)

    async def _wait(self, lanes: Sequence[Lane], until_s: float) -> None:
        pending = {lane.future for lane in lanes if not lane.future.done()}
        if pending:
            await asyncio.wait(pending, timeout=max(0.0, until_s - self._clock.now_s()))

    async def _cut_off(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            self._hooks.warn("a running message is cut off", scope=str(lane.scope_id))
            self._pool.end(lane, at_once=True)
        await asyncio.wait(
            {lane.future for lane in lanes}, timeout=self._pool.end_timeout_s or None
        )

    async def _release(self, holding: Holding) -> None:
        if holding.is_lost:
            return
        self._holdings.remove(holding)
        self._committer.discard(holding)
        try:
            await self._leases.release(holding.partition, holding.ledger.token)
        except (StoreUnavailable, StoreRefused, StoreError) as error:
            self._hooks.warn(
                "a partition could not be released and is left to its lease",
                partition=holding.partition,
                reason=str(error),
            )
        else:
            self._holdings.tallies.handoffs += 1

    def hurry(self) -> None:
        """Cut off what still runs, now; also what is closed only after this, by `hand_off_all`."""
        self._is_hurried = True
        for lane in self._pool.leaving:
            if not lane.future.done():
                self.has_cut_off = self.has_cut_off or lane.is_busy
                self._pool.end(lane)

    async def hand_off_all(self, limit_s: float) -> None:
        """Give everything up; each partition as soon as it is empty."""
        self.is_ending = True
        holdings = [one for one in self._holdings.all() if not one.ledger.is_draining]
        for holding in holdings:
            self._close(holding)
        leaving = self._leaving()
        if self._is_hurried:
            self.hurry()
        async with asyncio.TaskGroup() as tasks:
            for holding in holdings:
                tasks.create_task(
                    self._finish(holding, leaving.get(holding, []), limit_s),
                    name=f"hand-off:{holding.partition}",
                )
        while len(self._holdings) or self._under_way:
            # Those whose hand-off had begun before.
            self._holdings.changed.clear()
            await self._holdings.changed.wait()
