"""Membership: beats, claims what this worker should hold, and sheds what it should not.

One loop, woken by time, by hints of other workers (pub/sub only hurries) and by the nearest
expiry of a foreign lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from ..broker.attempts import read_row
from ..broker.leases import Claimed, Leases, Standing
from ..broker.wire import Meta
from ..config import Config
from ..engine.leases import Balance, Plan
from ..engine.ledger import Ledger
from ..engine.suspects import Takeover
from ..errors import StoreError, StoreRefused, StoreUnavailable
from ..hooks import Hooks
from ..model import AttemptsRow, EntryId, Partition
from .clock import Clock
from .holding import Holding, Holdings
from .outage import Outage

EXPIRY_MARGIN_S = 0.02
REFUSED_S = 60.0
"""Who may not subscribe asks again so seldom."""
Lease = tuple[str, int]
"""Owner ("" if released) and milliseconds left."""


class Actions(Protocol):
    """What membership asks of the worker."""

    def describe(self) -> dict[str, str]:
        """What the worker says of itself."""
        ...

    def can_claim(self) -> bool:
        """Whether what it claimed would be read."""
        ...

    def heed_pause(self, since_unix_ms: int) -> bool:
        """Whether the namespace is paused, 0 if it is not; True if that is news."""
        ...

    def asked(self, request: bytes) -> None:
        """An operator asks for something."""
        ...

    async def hand_off(self, holding: Holding) -> None:
        """Give a holding up in good order."""
        ...

    def history_changed(self) -> None:
        """The server's data may have gone back in time."""
        ...

    async def held_changed(self) -> None:
        """Partitions were claimed, or it is time to look after the leases held."""
        ...


class Membership:
    """Keeps one worker a member of its fleet.

    Attributes:
        joined: set after the first beat, survey and claim.
        is_stopping: nothing is claimed any more.
        is_ending: everything is handed on; `run` returns after the round under way.
    """

    def __init__(
        self,
        actions: Actions,
        leases: Leases,
        config: Config,
        holdings: Holdings,
        balance: Balance,
        clock: Clock,
        hooks: Hooks,
    ) -> None:
        """Work with the worker's leases."""
        self.joined = asyncio.Event()
        self.is_stopping = False
        self.is_ending = False
        self._actions = actions
        self._leases = leases
        self._config = config
        self._holdings = holdings
        self._balance = balance
        self._clock = clock
        self._hooks = hooks
        self._hint = asyncio.Event()
        self._joins_anew = False

    def hint(self) -> None:
        """Look again soon."""
        self._hint.set()

    async def run(self) -> None:
        """Beat, claim and shed until ended; raises as `Outage.wait` does."""
        outage = Outage("beating", self._hooks)
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(), name="listen")
            while not self.is_ending:
                # Cleared before looking: a hint that comes while we look is not lost.
                self._hint.clear()
                try:
                    wait_s = await self._round(tasks)
                    outage.over()
                except (StoreUnavailable, StoreRefused, StoreError) as error:
                    await outage.wait(error)
                    continue
                try:
                    async with asyncio.timeout(wait_s):
                        await self._hint.wait()
                except TimeoutError:
                    pass
            await self._let_go()
            for partition in self._holdings.unheld:
                self._hooks.warn(
                    "a partition could not be released and is left to its lease",
                    partition=partition,
                )
            listening.cancel()

    async def _listen(self) -> None:
        while True:
            try:
                subscription = await self._leases.listen()
                try:
                    while True:
                        channel, data = await subscription.next()
                        if self._leases.is_request(channel):
                            self._actions.asked(data)
                        elif not self.is_stopping:  # what it releases is for others
                            self._hint.set()
                finally:
                    await subscription.aclose()
            except (StoreUnavailable, StoreRefused, StoreError) as error:
                self._hooks.detail("hints are not heard", reason=str(error))
                is_away = isinstance(error, StoreUnavailable)
                await asyncio.sleep(self._config.beat_s if is_away else REFUSED_S)

    async def _round(self, tasks: asyncio.TaskGroup) -> float:
        """One beat; returns the seconds until the next."""
        lease_ms = int(self._config.lease_s * 1000)
        beat = await self._leases.beat(self._actions.describe(), lease_ms, self._standing())
        self._joins_anew = False
        self._clock.set(beat.redis_ms)
        self._look_at(beat.meta)
        if self._actions.heed_pause(beat.paused_unix_ms):
            self._hint.set()  # who waits for it reads of it in the next beat
        await self._actions.held_changed()
        if self.is_stopping:
            await self._let_go()
            return self._config.beat_s
        before = {one.partition for one in self._holdings.all()}
        survey = self._without_damaged(await self._leases.survey(before))
        held = {one.partition: one.ledger.is_draining for one in self._holdings.all()}
        plan = self._balance.plan(beat.members, held, survey, beat.redis_ms)
        await self._claim(plan)
        self._holdings.ownerless = self._count_ownerless(survey)
        self._tell_of_unserved(plan)
        # The others gave its part away, and see by this alone that it could be had back.
        self._joins_anew = plan.is_left_out and not self._holdings.avoided
        self.joined.set()
        if self.is_stopping:
            return self._config.beat_s
        leaving = [*self._avoided(), *self._idlest(plan.shed)]
        for holding in leaving:
            holding.ledger.drain()
            tasks.create_task(self._actions.hand_off(holding), name=f"hand-off:{holding.partition}")
        if leaving:
            self._holdings.changed.set()
        return self._wait_s(plan)

    def _standing(self) -> Standing:
        """A worker that stops is left out at once: the others claim what it releases."""
        if self.is_stopping or not self._actions.can_claim():
            return Standing.OUT
        return Standing.ANEW if self._joins_anew else Standing.IN

    def _look_at(self, meta: Meta) -> None:
        """Notice that Redis lost its data; a producer may have made the namespace anew."""
        if meta == self._leases.meta:
            return
        self._hooks.warn(
            "Redis lost its data: the namespace is a new one",
            generation=meta.generation,
            count=meta.partitions,
        )
        self._leases.meta = meta
        self._holdings.partitions = meta.partitions
        self._actions.history_changed()

    def _without_damaged(self, survey: Mapping[Partition, Lease | None]) -> dict[Partition, Lease]:
        """The leases that can be read; which of them cannot is told once."""
        damaged = {partition for partition, lease in survey.items() if lease is None}
        for partition in sorted(damaged - self._holdings.damaged):
            self._hooks.warn(
                "a lease was overwritten by something else and nobody can own its partition; "
                "delete its key",
                partition=partition,
                key=self._leases.key_of(partition),
            )
        self._holdings.damaged = damaged
        return {partition: lease for partition, lease in survey.items() if lease is not None}

    def _count_ownerless(self, survey: Mapping[Partition, Lease]) -> int:
        """Partitions that nobody owned and that were not claimed here since."""
        return len(self._holdings.damaged) + sum(
            (not owner or left_ms <= 0) and self._holdings.get(partition) is None
            for partition, (owner, left_ms) in survey.items()
        )

    def _tell_of_unserved(self, plan: Plan) -> None:
        """Tell once of each partition that is avoided here and that nobody else takes."""
        before = self._holdings.unserved
        avoided = self._holdings.avoided.intersection(plan.candidates)
        # What was released just now is free for a moment: the others have some beats to take it.
        now = self._holdings.unserved = avoided if plan.is_left_out else avoided & before
        for partition in sorted(now - before):
            self._hooks.warn(
                "a partition has no worker: an instance of it does not end here, and nobody else "
                "takes it; start another worker, or restart this one",
                partition=partition,
            )
        for partition in sorted(before - now):
            self._hooks.life("a partition has a worker again", partition=partition)

    def _wait_s(self, plan: Plan) -> float:
        if plan.next_expiry_ms is None:
            return self._config.beat_s
        return min(self._config.beat_s, plan.next_expiry_ms / 1000 + EXPIRY_MARGIN_S)

    def _avoided(self) -> Sequence[Holding]:
        """Those in which an instance does not end: elsewhere its scope need not wait for it."""
        held = self._holdings.all()
        avoided = self._holdings.avoided
        return [one for one in held if one.partition in avoided and not one.ledger.is_draining]

    def _idlest(self, count: int) -> Sequence[Holding]:
        avoided = self._holdings.avoided
        held = [
            one
            for one in self._holdings.all()
            if not one.ledger.is_draining and one.partition not in avoided
        ]
        return sorted(held, key=lambda one: (one.ledger.in_flight, -one.partition))[:count]

    async def _claim(self, plan: Plan) -> None:
        """Claim as many as are wanted; what somebody else took meanwhile is made up for."""
        candidates = [one for one in plan.candidates if one not in self._holdings.avoided]
        wanted = plan.wanted
        while wanted > 0 and candidates and not self.is_stopping:
            asked, candidates = candidates[:wanted], candidates[wanted:]
            claimed = await self._leases.claim(asked)
            self._holdings.unheld.update((one.partition, one.token) for one in claimed)
            if self.is_stopping:
                await self._let_go()
                return
            await self._take(claimed)
            wanted -= len(claimed)

    async def _let_go(self) -> None:
        """Release what is not in hand: others would wait for the end of its lease."""
        for partition, token in [*self._holdings.unheld.items()]:
            with contextlib.suppress(StoreUnavailable, StoreRefused, StoreError):
                await self._leases.release(partition, token)
                del self._holdings.unheld[partition]

    async def _take(self, claimed: Sequence[Claimed]) -> None:
        rows = await self._leases.attempts([one.partition for one in claimed])
        if self.is_stopping:
            await self._let_go()
            return
        for one, packed in zip(claimed, rows, strict=True):
            if packed is None:
                continue  # its node went away behind the claim; as its owner we get it again
            ledger = Ledger(partition=one.partition, token=one.token)
            attempts = self._read_rows(packed)
            takeover = self._judge(one, attempts) if one.is_unclean else None
            self._holdings.add(Holding(ledger, one.last_id, attempts=attempts, takeover=takeover))
            self._hooks.detail("partition claimed", partition=one.partition, epoch=ledger.epoch)
        if claimed:
            await self._actions.held_changed()

    def _read_rows(self, packed: Mapping[EntryId, bytes]) -> dict[EntryId, AttemptsRow]:
        rows: dict[EntryId, AttemptsRow] = {}
        for entry_id, one in packed.items():
            row = read_row(one)
            if row is None:
                self._hooks.warn("an attempts row cannot be read", entry=entry_id)
            rows[entry_id] = row or AttemptsRow()  # it goes with its entry
        return rows

    def _judge(self, claimed: Claimed, rows: Mapping[EntryId, AttemptsRow]) -> Takeover:
        """The last owner died, or stalled: it may have been one of the messages it had in hand."""
        return Takeover(
            previous=claimed.previous,
            last_id=claimed.last_id,
            most=self._config.in_flight_per_partition,
            is_again=claimed.is_again,
            was_probing=any(row.probe == claimed.previous for row in rows.values()),
        )
