"""Session: a client's connection to one namespace, opened at first use, for one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Self

from ..broker.connect import Store, open_store
from ..broker.link import Link
from ..broker.scripts import Scripts
from ..broker.slots import slot_of
from ..broker.streams import open_namespace, read_partition_count
from ..broker.wire import Keys
from ..config import Config
from ..errors import ClientClosed, StoreIncompatible, StoreUnavailable, WherryError, WrongLoop
from ..model import Partition, partition_of
from .tasks import Tasks

_LOOK_AGAIN_S = 5.0
_READS_AT_ONCE = 3
_LOOK_WITHIN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What is known once the store has answered; see `Session.current` for how long it holds.

    Attributes:
        store: for further links.
        link: for short commands of every kind.
        writes: for messages, one write at a time to a server; in a cluster the same as `link`, as
            what waits for one partition must not hold up the others.
        scripts: those that a client runs.
        partitions: count of the namespace.
    """

    store: Store
    link: Link
    writes: Link
    scripts: Scripts
    partitions: int

    def partition_of(self, scope_id: str) -> Partition:
        """The partition of a scope."""
        return partition_of(scope_id, self.partitions)


class Session:
    """Opens the store once, whoever asks first; owns the client's tasks.

    Attributes:
        config: settings, with the namespace and the partition count asked for.
        keys: key names of the namespace.
        tasks: the client's background tasks.
        reads: lets a few short reads and wake-ups go at a time, so that ten thousand followers do
            not open a connection each.
    """

    __slots__ = (
        "_is_closed", "_look_at_s", "_loop", "_opened", "_opening", "_source",
        "config", "keys", "reads", "tasks",
    )  # fmt: skip

    def __init__(self, source: Store | str, config: Config) -> None:
        """Connect later; a store given by its URL is opened and closed with this session."""
        self._source = source
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: Opened | None = None
        self._opening: asyncio.Task[Opened] | None = None
        self._is_closed = False
        self._look_at_s = 0.0
        self.config = config
        self.keys = Keys(config.namespace)
        self.tasks = Tasks()
        self.reads = asyncio.Semaphore(_READS_AT_ONCE)

    def enter(self) -> Self:
        """Check that a call may go on: called first by each public method.

        Raises:
            WrongLoop: another event loop than at first use.
            ClientClosed: after `aclose`.
        """
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise ClientClosed("this client was closed; make another one")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoop(
                "this client belongs to another event loop; use one Client for each loop "
                "(made inside it), or one wherry.SyncClient for all threads"
            )
        return self

    @property
    def known(self) -> Opened | None:
        """The same without asking: None before the store has answered."""
        return self._opened

    async def opened(self) -> Opened:
        """Open the store and the namespace, once for all who ask meanwhile.

        Raises:
            WherryError: as `open_store` and `open_namespace` do; the next call tries again.
        """
        if self._opened is not None:
            return self._opened
        return await self._once(self._open)

    async def current(self) -> Opened:
        """The same, with the partition count as it is now.

        A namespace that was flushed may have come back with another count, and then a message in
        the wrong partition waits for ever, or beside its scope. So whoever is at work looks again
        every few seconds. What is sent until then goes astray: no command can look at the count
        and append at a time, as the two keys may be on different nodes of a cluster.

        Raises:
            StoreIncompatible: the count is not the one that was asked for.
            WherryError: as `opened` does, and when the store cannot be asked.
        """
        opened = await self.opened()
        if self._is_closed or asyncio.get_running_loop().time() < self._look_at_s:
            return opened  # what is under way at the end is written as it was meant
        if not self.is_cluster:
            return await self._once(self._look_again)
        try:
            # The count is on one node, and what that does not say holds up no other.
            async with asyncio.timeout(_LOOK_WITHIN_S):
                return await self._once(self._look_again)
        except (StoreUnavailable, TimeoutError):
            self._look_at_s = asyncio.get_running_loop().time() + _LOOK_WITHIN_S
            return opened

    async def doubt(self, error: WherryError) -> None:
        """A look or a write has failed, and no write is under way: the next find new connections.

        That one was lost in silence is only noticed by waiting for it. What has struck the one for
        looks has the one for writes, too, and they would be waited for one after the other.
        """
        opened = self._opened
        if opened is None or opened.writes is opened.link:
            return
        if isinstance(error, StoreUnavailable):
            await opened.writes.reconnect()
            # To close one encrypted connection in silence takes a while; nobody waits for that.
            self.tasks.start(opened.link.reconnect(), "client:reconnect")

    async def _once(self, work: Callable[[], Coroutine[Any, Any, Opened]]) -> Opened:
        """Do a piece of opening work for all who ask meanwhile."""
        if self._is_closed:
            raise ClientClosed("this client was closed; make another one")
        if self._opening is None:
            self._opening = self.tasks.start(work(), "client:open")
            self._opening.add_done_callback(self._forget_opening)
        opening = self._opening
        # Not awaited itself: a caller that is cancelled must not cancel it for the others.
        await asyncio.wait([opening])
        if opening.cancelled():
            raise ClientClosed("this client was closed while it connected")
        return opening.result()

    @property
    def is_cluster(self) -> bool:
        """Whether partitions are on different nodes."""
        source = self._source
        if isinstance(source, str):
            return "+cluster:" in source[:20]
        return source.topology is not None

    def bundle_of(self, key: str) -> int:
        """Streams of one bundle can share a read: in a cluster those of one slot."""
        return slot_of(key) if self.is_cluster else 0

    def unix_s(self) -> float:
        """Now, as `Store.unix_s` says; a store that is not open yet has the computer's clock."""
        if isinstance(self._source, Store):
            return self._source.unix_s()
        return time.time() if self._opened is None else self._opened.store.unix_s()

    def is_used(self) -> bool:
        """Whether there is anything to close."""
        return self._loop is not None and not self._is_closed

    def shut(self) -> None:
        """Let no further call in."""
        self._is_closed = True

    async def aclose(self) -> None:
        """End all tasks and close all connections."""
        self.shut()
        await self.tasks.aclose()
        if self._opened is not None:
            try:
                await self._opened.link.aclose()
            finally:
                await self._opened.writes.aclose()
            if isinstance(self._source, str):
                await asyncio.to_thread(self._opened.store.close)
            self._opened = None

    def _forget_opening(self, opening: asyncio.Task[Opened]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # marks it as seen, also when every caller has gone

    async def _open(self) -> Opened:
        store = await self._open_store()
        link = store.link(answer_timeout_s=self.config.socket_timeout_s)
        try:
            meta = await open_namespace(link, self.keys, self.config.partitions)
        except BaseException:
            await link.aclose()
            if isinstance(self._source, str):
                store.close()
            raise
        writes = link
        if not self.is_cluster:
            writes = store.single_link(answer_timeout_s=self.config.socket_timeout_s)
        return self._keep(
            Opened(
                store=store,
                link=link,
                writes=writes,
                scripts=Scripts(memory=store.is_memory),
                partitions=meta.partitions,
            )
        )

    async def _look_again(self) -> Opened:
        opened, wanted = await self.opened(), self.config.partitions
        async with self.reads:
            count = await read_partition_count(opened.link, self.keys)
        if wanted is not None and count not in (None, wanted):
            raise StoreIncompatible(
                f"namespace {self.config.namespace!r} was made anew with {count} partitions, but "
                f"{wanted} were asked for; leave the count unset to adopt {count}"
            )
        # While there is none the workers may be about to write it anew, with the count they have.
        return self._keep(replace(opened, partitions=count or opened.partitions))

    def _keep(self, opened: Opened) -> Opened:
        self._opened = opened
        self._look_at_s = asyncio.get_running_loop().time() + _LOOK_AGAIN_S
        return opened

    async def _open_store(self) -> Store:
        if isinstance(self._source, Store):
            return self._source
        if self._source.startswith("embedded:"):
            # Starting a server takes a moment; the loop goes on meanwhile.
            return await asyncio.to_thread(open_store, self._source)
        return open_store(self._source)
