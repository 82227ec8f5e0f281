"""Renewal: keeps the leases on a thread of its own, so that a busy loop does not lose them.

The thread renews while the loop has turned within one lease, and unless a read was sent and
is unanswered for too long (a connection of which only one half is alive). It also sees what the
loop cannot tell of itself: who blocks it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from ..broker.blocking import BlockingLink
from ..broker.connect import Store
from ..broker.link import Link
from ..broker.renewing import renew_apart, renew_held, renew_together
from ..broker.scripts import Script
from ..broker.wire import Keys
from ..config import Config
from ..errors import StoreUnavailable, WherryError
from ..hooks import Hooks
from ..model import Partition, Token
from .blocked import Blocked
from .reads import MARGIN_S, Ears

Held = tuple[tuple[Partition, Token], ...]
JOIN_WITHIN_S = 2.0


class Renewal:
    """Renews every beat what it was last told to look after.

    Attributes:
        on_lost: called in the loop with leases that are no longer ours.
    """

    def __init__(
        self,
        store: Store,
        script: Script,
        keys: Keys,
        config: Config,
        hooks: Hooks,
        ears: Ears,
    ) -> None:
        """Renew for the running event loop.

        Args:
            store: where to connect, from the thread.
            script: ``renew.lua``.
            keys: of the namespace.
            config: lease, beat and block times.
            hooks: reports.
            ears: tell which partitions are read.
        """
        self.on_lost: Callable[[Sequence[tuple[Partition, Token]]], None]
        self._held: Held = ()
        self._store = store
        self._script = script
        self._keys = keys
        self._config = config
        self._hooks = hooks
        self._ears = ears
        self._turned_at_s = time.monotonic()
        self._stop = threading.Event()
        self._blocked = Blocked(hooks)

    async def look_after(self, held: Held) -> None:
        """Swap the whole tuple; the thread reads it without a lock."""
        self._held = held

    async def run(self) -> None:
        """Run the thread until cancelled; the thread has ended when this returns.

        A thread that waits for Redis is not waited for: it ends with its answer.
        """
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._work, args=(loop,), name="renewal", daemon=True)
        thread.start()
        try:
            while True:
                self._turned_at_s = time.monotonic()
                await asyncio.sleep(self._config.beat_s / 2)
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join, JOIN_WITHIN_S)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        link = self._store.sync_link(answer_timeout_s=self._answer_timeout_s())
        try:
            while not self._stop.wait(self._config.beat_s):
                lease_s, beat_s = self._config.lease_s, self._config.beat_s
                self._blocked.look(loop, self._turned_at_s, lease_s / 2, 1.5 * beat_s)
                held = self._renewable(self._held)
                if held:
                    self._renew(loop, link, held)
        finally:
            link.close()

    def _answer_timeout_s(self) -> float:
        # The nodes of a cluster wait for one another.
        is_alone = self._store.topology is None
        return self._config.lease_s if is_alone else self._config.beat_s / 2

    def _renewable(self, held: Held) -> Held:
        """The leases that may be renewed: what is not read others shall have."""
        turned_at_s, ears = self._turned_at_s, self._ears
        if time.monotonic() - turned_at_s > self._config.lease_s:
            return ()
        # As of the last turn: while the loop is busy an answer may lie there unread.
        limit_s = self._config.block_s + MARGIN_S
        return tuple(one for one in held if not ears.is_deaf(one[0], turned_at_s, limit_s))

    def _renew(self, loop: asyncio.AbstractEventLoop, link: BlockingLink, held: Held) -> None:
        renew = renew_together if self._store.topology is None else renew_apart
        ttl_ms = int(self._config.lease_s * 1000)
        try:
            answers = renew(link, self._script, self._keys, held, ttl_ms)
        except WherryError as error:
            self._hooks.detail("leases could not be renewed", reason=str(error))
            self._revive(error)
            return
        failures = [answer for answer in answers if isinstance(answer, WherryError)]
        if failures:
            reason, count = str(failures[0]), len(failures)
            self._hooks.detail("leases could not be renewed", reason=reason, count=count)
        lost = [one for one, kept in zip(held, answers, strict=True) if kept is False]
        if lost:
            try:
                loop.call_soon_threadsafe(self.on_lost, lost)
            except RuntimeError:
                return  # the loop was closed meanwhile

    def _revive(self, error: WherryError) -> None:
        """An embedded server whose supervisor was killed is started by nobody but its users."""
        if isinstance(error, StoreUnavailable):
            try:
                self._store.revive()
            except WherryError as failure:
                self._hooks.detail("the store could not be started", reason=str(failure))


class RenewalInLoop:
    """The same for a store in memory: one process, one loop, and a thread would guard nothing.

    Attributes:
        on_lost: called with leases that are no longer ours.
    """

    def __init__(self, link: Link, script: Script, keys: Keys, config: Config) -> None:
        """Renew over a link whenever told to."""
        self.on_lost: Callable[[Sequence[tuple[Partition, Token]]], None]
        self._link = link
        self._script = script
        self._keys = keys
        self._ttl_ms = int(config.lease_s * 1000)

    async def look_after(self, held: Held) -> None:
        """Renew now."""
        if held:
            kept = await renew_held(self._link, self._script, self._keys, held, self._ttl_ms)
            self.on_lost([one for one, is_kept in zip(held, kept, strict=True) if not is_kept])
