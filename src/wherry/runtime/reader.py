"""Reader: one blocking read over all partitions held, from cursors in memory.

Reading changes nothing in Redis. After any doubt the partition is read from its beginning and
what is in hand is skipped. Without room nothing is read: Redis is the buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

from ..broker.link import Link
from ..broker.streams import RawEntry, read_streams
from ..broker.wire import Keys
from ..config import Config
from ..engine.bursts import FEW
from ..engine.gathering import Usage
from ..errors import StoreError, StoreRefused, StoreUnavailable
from ..hooks import Hooks
from ..model import Partition
from .holding import Holding, Holdings
from .outage import Outage
from .reads import SharedReads
from .recheck import recheck
from .router import Router
from .selection import Choice, Selection

UNBLOCK_PAUSE_S = 0.005
TRICKLE = 64
"""So many entries are worth a read of their own while commits are under way."""
ANSWER_WITHIN_S = 0.02
"""Longest time for which fewer wait for an answer to a commit."""


class Gate(Protocol):
    """What the reader asks of the worker."""

    def has_room(self) -> bool:
        """Whether the pool takes another scope."""
        ...

    def is_shut(self) -> bool:
        """Whether nothing may be read now; what a read under way brings is dropped."""
        ...

    def is_settling(self) -> bool:
        """Whether answers of commits, which make room, are on their way."""
        ...

    async def answered(self, within_s: float) -> None:
        """Wait for the answer to a commit that is under way, at most so long.

        The next commit is sent when the caller has had its turn.
        """
        ...


class _Named:
    """The holdings of the last read by their keys: mostly the next one asks for the same."""

    __slots__ = ("_by_key", "_rewinds", "keys")

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._rewinds: dict[Holding, int] = {}
        self._by_key: dict[str, Holding] = {}

    def name(self, choice: Choice) -> dict[str, Holding]:
        if choice.rewinds is not self._rewinds:
            key_of = self.keys.entries
            self._rewinds = choice.rewinds
            self._by_key = {key_of(one.ledger.partition): one for one in choice.rewinds}
        return self._by_key


class Reader:
    """Reads for one worker."""

    def __init__(
        self,
        links: tuple[Link, Link],
        config: Config,
        holdings: Holdings,
        router: Router,
        gate: Gate,
        hooks: Hooks,
        usage: Callable[[], Usage],
    ) -> None:
        """Read with a connection of its own.

        Args:
            links: the reading one, and one for commands beside it.
            config: bounds.
            holdings: what to read; their ears are those of reads that all share.
            router: gets what was read.
            gate: the worker's say.
            hooks: reports.
            usage: what the thread that reads has had of its cores.
        """
        self._links = links
        self._connects = 0
        self._named = _Named(Keys(config.namespace))
        self._config = config
        self._holdings = holdings
        self._reads = cast("SharedReads", holdings.ears).reads
        self._router = router
        self._gate = gate
        self._hooks = hooks
        self._selection = Selection(config, holdings, usage)
        self._waiting: Choice | None = None  # what the blocking read under way is for
        self._patience: asyncio.Timeout

    async def run(self) -> None:
        """Read and route, for ever.

        Raises:
            StoreRefused: a login or a right was refused for too long.
        """
        outage = Outage("reading", self._hooks)
        async with asyncio.TaskGroup() as tasks:
            rechecking = recheck(self._links[1], self._named.keys, self._holdings)
            tasks.create_task(rechecking, name="recheck")
            tasks.create_task(self._watch(), name="watch")
            while True:
                try:
                    await self._turn()
                    outage.over()
                except (StoreUnavailable, StoreRefused, StoreError) as error:
                    self._read_anew()
                    await outage.wait(error)

    def _read_anew(self) -> None:
        for holding in self._holdings.all():
            holding.deferred.clear()
            holding.ledger.rewind()

    async def _turn(self) -> None:
        brought, self._selection.brought = self._selection.brought, 0
        if brought:
            await self._gather(brought)
        choice = None
        if self._gate.has_room():
            choice = self._selection.choose(self._reads.sent, is_settling=self._gate.is_settling())
        if choice is None:
            if self._reads.waiting_since_s:
                await self._prove()
                return
            # `_watch` clears it, too, but may be waiting for an answer to CLIENT UNBLOCK: a set
            # event does not suspend, and the loop would spin meanwhile.
            self._holdings.changed.clear()
            await self._holdings.changed.wait()
            return
        try:
            async with asyncio.timeout(None) as self._patience:
                if not choice.is_partial:
                    self._waiting = choice
                by_key, answer = await self._read(choice)
        except TimeoutError:
            # The watch has cut this read short, and with it its connection.
            self._read_anew()
        except StoreError:
            if not await self._leave_out(choice.rewinds):
                raise
        else:
            self._waiting = None
            await self._route_all(by_key, answer, choice)
        finally:
            self._waiting = None

    async def _gather(self, brought: int) -> None:
        """Let entries gather before the next read, if the last one has brought but so many."""
        now_s = asyncio.get_running_loop().time()
        pause_s = self._selection.gathering.pause_s(brought, now_s)
        if pause_s:
            await asyncio.sleep(pause_s)
        elif self._selection.portions.are_under_way:
            # Those that were woken have their turn. What they cause is sent behind the next read:
            # the server answers that before it carries out this. Nor is the read sent before those
            # who are being answered can have sent more: it would be ended by the first entry of it,
            # and the rest would come behind the commit.
            await asyncio.sleep(0)
            await self._gate.answered(ANSWER_WITHIN_S)
        elif brought < TRICKLE:
            await self._let_send()
            if brought >= FEW:
                await self._let_answer()

    async def _let_send(self) -> None:
        """Let those that were woken have their turn, and send what they cause."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the committer's, which they have woken

    async def _let_answer(self) -> None:
        """Let what the last few entries cause be answered before the next read.

        A read and a commit cost much the same for one entry and for some. While a few come, reading
        on at once would only make more and smaller batches: of what comes meanwhile one read
        brings all. Single ones are the first of such, for which the others do not wait, or have
        nobody behind them: then the next read is to be on its way when the answer is.
        """
        if self._gate.is_settling():
            changed = self._holdings.changed
            changed.clear()
            timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN_S, changed.set)
            try:
                await changed.wait()
            finally:
                timer.cancel()

    async def _prove(self) -> None:
        """Read nothing, only to see that reads are answered: until then nothing is claimed."""
        self._reads.begin()
        is_answered = False
        try:
            nothing = {self._named.keys.entries(Partition(0)): "$"}
            await read_streams(self._links[0], nothing, count=1, block_ms=None)
            is_answered = True
        except StoreError:
            is_answered = True
        finally:
            self._reads.end(is_answered=is_answered, block_s=self._config.block_s)

    async def _leave_out(self, holdings: Iterable[Holding]) -> bool:
        """Find the stream for which all were refused: one read serves all partitions."""
        asked = list(holdings)
        keys = [self._named.keys.entries(one.partition) for one in asked]
        answers = await self._links[1].calls([("XLEN", key) for key in keys])
        found = False
        for holding, key, answer in zip(asked, keys, answers, strict=True):
            if isinstance(answer, StoreError):
                found = True
                holding.ledger.mark(is_unreadable=True)
                self._hooks.warn(
                    "an input stream was overwritten by something else and is not read; "
                    "rename or delete its key",
                    partition=holding.partition,
                    key=key,
                    reason=str(answer),
                )
        return found

    async def _watch(self) -> None:
        """Cut a blocking read short when it waits for too little."""
        while True:
            await self._holdings.changed.wait()
            self._holdings.changed.clear()
            waiting = self._waiting
            if (
                waiting is not None
                and self._gate.has_room()
                and self._selection.is_outdated(waiting)
            ):
                await self._interrupt(self._reads.sent)

    async def _read(self, choice: Choice) -> tuple[dict[str, Holding], dict[str, list[RawEntry]]]:
        """The holdings that were read, by key, and what was brought."""
        by_key = self._named.name(choice)
        cursors = {key: holding.ledger.cursor for key, holding in by_key.items()}
        # After one that stayed without an answer the next one does not block: it is a proof.
        is_brief = choice.is_partial or self._reads.waiting_since_s
        block_ms = None if is_brief else int(self._config.block_s * 1000)
        answer = await self._ask(cursors, choice.count, block_ms)
        brought = sum(map(len, answer.values()))
        now_s = asyncio.get_running_loop().time()
        bursts = self._selection.bursts
        if not is_brief and bursts.may_follow(brought, now_s):
            # From the same cursors: what was read is not in hand yet, and is brought again.
            answer = await self._ask(cursors, choice.count, None)
            before, brought = brought, sum(map(len, answer.values()))
            bursts.looked(before, brought)
        connects, self._connects = self._connects, self._links[0].connects
        if 0 < connects < self._connects:
            self._read_anew()
        self._selection.brought = brought
        return by_key, answer

    async def _ask(
        self, cursors: Mapping[str, str], count: int, block_ms: int | None
    ) -> dict[str, list[RawEntry]]:
        self._reads.begin()
        is_answered = False
        try:
            answer = await read_streams(self._links[0], cursors, count=count, block_ms=block_ms)
            is_answered = True
        finally:
            self._reads.end(is_answered=is_answered, block_s=self._config.block_s)
        return answer

    async def _route_all(
        self,
        by_key: Mapping[str, Holding],
        answer: Mapping[str, Sequence[RawEntry]],
        choice: Choice,
    ) -> None:
        selection = self._selection

        def is_whole() -> bool:
            # What is in hand may be among it, and be finished before its portion comes.
            is_anew = any(by_key[key].ledger.is_read_anew for key in answer)
            return is_anew or selection.gathering.is_on

        portions = selection.portions.part(answer, selection.brought, is_whole)
        backlogged = self._route(by_key, portions[0], choice)
        for portion in portions[1:]:
            await self._let_send()
            backlogged += self._route(by_key, portion, choice)
        if not self._gate.is_shut():
            selection.note(choice.rewinds, backlogged, selection.window.room())
            for ledger in [*self._holdings.hand.with_tombstones]:
                ledger.answered(self._reads.answered)

    def _route(
        self,
        by_key: Mapping[str, Holding],
        portion: Mapping[str, Sequence[RawEntry]],
        choice: Choice,
    ) -> list[Holding]:
        """Route a portion; returns those that have more."""
        backlogged: list[Holding] = []
        if self._gate.is_shut():
            return backlogged
        room = self._selection.window.room()
        for key, entries in portion.items():
            holding = by_key[key]
            ledger = holding.ledger
            if holding.is_lost or ledger.is_draining or ledger.rewinds != choice.rewinds[holding]:
                continue
            if not self._router.route(holding, entries, room) or len(entries) >= choice.count:
                backlogged.append(holding)
        return backlogged

    async def _interrupt(self, read: int) -> None:
        """Let a blocking read return at once; where that is forbidden, close its connection."""
        try:
            while self._reads.answered < read:
                client_id = self._links[0].client_id
                if client_id is None:
                    break
                if await self._links[1].call("CLIENT", "UNBLOCK", client_id) == 1:
                    return
                # It was not blocked: either answered already, or not yet seen by the server.
                await asyncio.sleep(UNBLOCK_PAUSE_S)
        except (StoreError, StoreRefused, StoreUnavailable):
            pass
        if self._reads.answered < read and self._waiting is not None:
            # Once for each read: a timeout that is about to strike cannot be set again.
            self._waiting = None
            self._patience.reschedule(asyncio.get_running_loop().time())
