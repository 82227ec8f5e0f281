"""Worker: the composition root; builds the parts, nests their lives, drains and stops.

One message's way: reader -> router -> inbox of the scope's lane -> ``receive()`` ... ``send()``
-> `Worker.application_send` -> outbox -> committer -> reply stream.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from typing import Any, cast

from .broker.cluster import node_of
from .broker.connect import Store, open_store
from .broker.leases import Leases
from .broker.scripts import Scripts
from .broker.wire import Keys, Meta
from .config import Config
from .engine.gathering import Usage
from .engine.leases import Balance
from .errors import ScopeClosed, StoreError, StoreRefused, StoreUnavailable
from .hooks import Hooks
from .model import Application, Message
from .runtime.about import About
from .runtime.arrival import Arrival
from .runtime.burials import Burials
from .runtime.clock import Clock
from .runtime.committer import Committer
from .runtime.control import Control
from .runtime.cores import own_usage
from .runtime.duties import Duties
from .runtime.farewell import Farewell
from .runtime.handoff import HandOff
from .runtime.histories import watch_history
from .runtime.holding import Holdings
from .runtime.lifespan import Lifespan
from .runtime.loader import Loader
from .runtime.looks import Looks
from .runtime.membership import Membership
from .runtime.outbox import Outbox
from .runtime.parked import Parked
from .runtime.parts import Links, Parts, open_links, retention_of
from .runtime.pasts import Pasts
from .runtime.pause import Pause
from .runtime.pool import Pool
from .runtime.probing import Probing
from .runtime.reading import make_ears, make_reader
from .runtime.renewal import Renewal, RenewalInLoop
from .runtime.router import Router
from .runtime.server import StatelessServer, first_error
from .runtime.settlement import Settlement
from .runtime.spans import choose_watch
from .runtime.tallies import Tallies
from .runtime.tracked import Tracked
from .runtime.vitals import Organs, Vitals
from .runtime.window import Window

LEAVE_WITHIN_S = 2.0


class Worker(StatelessServer):
    """Carries messages between Redis Streams and an ASGI application.

    `handle` reads and routes, `application_send` takes what instances send; both may be
    overridden and call ``super()``. What user code puts into a queue by hand is untracked: it is
    tried once and lost with the process.

    Attributes:
        worker_id: unique name of this process in the fleet.
        has_drained: after a run, whether every running message could finish.
        vitals: looks at the runs that begin from now on, None: nobody does.
    """

    application_checker_interval = 5.0

    def __init__(
        self,
        application: Application,
        store: Store | str,
        config: Config | None = None,
        *,
        hooks: Hooks | None = None,
    ) -> None:
        """Serve an application.

        Args:
            application: ASGI 3 or ASGI 2; gets scopes of type ``channel``.
            store: an open store, or its URL.
            config: all settings.
            hooks: where to report; the logger ``wherry`` by default.

        Raises:
            ConfigError: the URL is none that Wherry knows.
        """
        self._config = config or Config()
        super().__init__(application, self._config.max_applications)
        self._hooks = hooks or self._hooks
        self._store = open_store(store) if isinstance(store, str) else store
        self._holdings = Holdings()
        self._clock = Clock()
        self._tracked = Tracked(self._config, self._holdings, self._clock, self._hooks)
        self._use_pool(
            Pool(
                self,
                self._tracked,
                self._hooks,
                self._config.end_timeout_s,
                Farewell(self._config.end_event, self._config.end_grace_s),
                self._store.unix_s,
            )
        )
        self._parts: Parts | None = None
        self._started = asyncio.Event()
        self._stop = asyncio.Event()
        self.has_drained = True
        self.vitals: Vitals | None = None
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    async def arun(self) -> None:
        """Work until `request_stop`; everything is handed on when it returns.

        Raises:
            StartupFailed: the application's lifespan failed.
            StoreUnavailable: Redis has not answered for ``start_wait_s`` at start.
            StoreRefused: Redis refuses the login or a command at start.
            StoreIncompatible: this namespace, or this server, cannot be used.
        """
        links = open_links(self._store, self._config)
        try:
            is_memory = self._store.is_memory
            arrival = Arrival(links.command, self._config, self._hooks, is_memory=is_memory)
            found = await arrival.reach(self._stop)
            if found is None:
                return
            self._holdings.partitions = found.meta.partitions
            async with Lifespan(self.application, self._config, self._hooks) as lifespan:
                self._tracked.scopes.lifespan_state = lifespan.state
                parts = self._parts = self._build(links, found.scripts, found.keys, found.meta)
                parts.duties.about.lacks = found.lacks
                if not self._is_overridden("application_send"):
                    self._tracked.outlet = parts.outbox.take
                watch_history(self._store, links, found.keys, self._holdings, parts.duties)
                self._let_watch(links, parts)
                self._started.set()
                await self._serve(parts)
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            for holding in self._holdings.all():
                self._holdings.remove(holding)
            await self._end()
            self._parts = self._tracked.outlet = self._tracked.watch = None
            if self.vitals is not None:
                self.vitals.detach()
            self._started.clear()
            self._stop.clear()
            await links.aclose()

    @property
    def tallies(self) -> Tallies:
        """What it has done since it was made."""
        return self._holdings.tallies

    def _is_overridden(self, name: str) -> bool:
        """Whether user code has put a method of its own in place of one of ours."""
        return name in vars(self) or getattr(type(self), name) is not getattr(Worker, name)

    def _build(self, links: Links, scripts: Scripts, keys: Keys, meta: Meta) -> Parts:
        config, holdings, hooks, clock = self._config, self._holdings, self._hooks, self._clock
        clock.start()
        holdings.ears = make_ears(links)
        settlement = Settlement(holdings, self._pool, hooks, config.scope_waiting)
        committer = Committer(
            *(links.write, scripts.commit, keys, retention_of(config), hooks, settlement),
            node_of(links.write, keys.entries),
        )
        loader = Loader(links.command, keys, Window(config, holdings), hooks)
        settlement.committer, settlement.refill = committer, loader.refill
        self._tracked.committer, self._tracked.states = committer, loader
        router = Router(config, self, committer, clock, hooks)
        loader.on_refill = router.refill
        pause = Pause(self._tracked, self._pool, holdings, hooks)
        probing = Probing(config, self._pool, committer, loader.refill, pause.stand_before, hooks)
        settlement.settled = probing.look
        burials = self._tracked.burials = Burials(
            config, committer, self._tracked.attempt_of, hooks
        )
        router.pasts = Pasts(config, clock, committer, burials, probing)
        leases = self._build_leases(links, scripts, keys, meta)
        handoff = HandOff(self._pool, holdings, committer, leases, clock, hooks)
        renewal = self._build_renewal(scripts, keys)
        duties = Duties(
            self._pool,
            holdings,
            settlement,
            handoff,
            renewal or RenewalInLoop(links.command, scripts.renew, keys, config),
            config,
        )
        duties.parked, duties.pause = Parked(leases, holdings, loader.refill), pause
        self._equip(duties, links, scripts, keys)
        balance = Balance(self.worker_id, int(config.beat_s * 1000))
        return Parts(
            committer=committer,
            loader=loader,
            outbox=Outbox(config, committer, self._tracked.attempt_of, clock, hooks),
            reader=make_reader(links, config, holdings, router, duties, hooks, self._usage),
            membership=Membership(duties, leases, config, holdings, balance, clock, hooks),
            renewal=renewal,
            handoff=handoff,
            leases=leases,
            probing=probing,
            duties=duties,
        )

    def _usage(self) -> Usage:
        """What the loop's thread has had of its cores; in memory it is alone."""
        return Usage(0.0, 0.0) if self._store.is_memory else own_usage()

    def _build_renewal(self, scripts: Scripts, keys: Keys) -> Renewal | None:
        if self._store.is_memory:
            return None
        config, hooks, ears = self._config, self._hooks, self._holdings.ears
        return Renewal(self._store, scripts.renew, keys, config, hooks, ears)

    def _equip(self, duties: Duties, links: Links, scripts: Scripts, keys: Keys) -> None:
        """What tells of the worker, and who hears operators."""
        clock, store = self._clock, self._store
        duties.about = About(
            self._holdings,
            self._pool,
            lambda: self._tracked.busy,
            beat_s=self._config.beat_s,
            started_unix_s=store.unix_s(),
            now_s=clock.now_s,
        )
        duties.control = Control(
            self.worker_id,
            links.command,
            scripts.answer,
            keys,
            Looks(self._holdings, clock, store.unix_s),
            self._end_as_asked,
            self._hooks,
        )

    def _end_as_asked(self, at_once: bool) -> None:
        if not self._stop.is_set():
            self.request_stop()
        if at_once:
            self.request_stop()

    def _let_watch(self, links: Links, parts: Parts) -> None:
        organs = Organs(self._pool, self._tracked, self._holdings, self._clock, links, parts)
        meter = self.vitals and self.vitals.attach(organs)
        self._tracked.watch = choose_watch(self._config.namespace, meter)

    def _build_leases(self, links: Links, scripts: Scripts, keys: Keys, meta: Meta) -> Leases:
        ttl_ms = int(self._config.lease_s * 1000)
        return Leases(
            links.command, scripts, keys, worker_id=self.worker_id, ttl_ms=ttl_ms, meta=meta
        )

    async def _serve(self, parts: Parts) -> None:
        """Stop order is nesting order: readers, instances, committer, leases."""
        async with asyncio.TaskGroup() as tasks:
            to_the_end = [
                tasks.create_task(parts.committer.run(), name="committer"),
                tasks.create_task(parts.loader.run(), name="loader"),
                tasks.create_task(parts.probing.run(), name="probing"),
                tasks.create_task(parts.duties.control.run(), name="control"),
                # Beside the checker, because that one may be overridden.
                tasks.create_task(self._pool.failures.serve(self._tell), name="reporter"),
                tasks.create_task(self.application_checker(), name="checker"),
            ]
            membership = tasks.create_task(parts.membership.run(), name="membership")
            if parts.renewal is not None:
                to_the_end.append(tasks.create_task(parts.renewal.run(), name="renewal"))
            reading = tasks.create_task(self.handle(), name="handle")
            reading.add_done_callback(lambda _: self._stop.set())
            self._hooks.life("worker started", worker=self.worker_id)
            await self._stop.wait()
            parts.membership.is_stopping = True
            parts.membership.hint()
            reading.cancel()
            await parts.handoff.hand_off_all(self._config.drain_timeout_s)
            await self._pool.end_all()
            self.has_drained = not parts.handoff.has_cut_off
            await self._leave(parts, membership)
            for task in to_the_end:
                task.cancel()
        self._hooks.life("worker stopped", worker=self.worker_id)

    async def _leave(self, parts: Parts, membership: asyncio.Task[None]) -> None:
        # Its round may be claiming, and it would beat once more.
        parts.membership.is_ending = True
        parts.membership.hint()
        await asyncio.wait([membership], timeout=LEAVE_WITHIN_S)
        membership.cancel()
        try:
            await parts.leases.leave()
        except (StoreUnavailable, StoreRefused, StoreError) as error:
            self._hooks.warn("the fleet could not be told of the end", reason=str(error))

    async def ready(self) -> None:
        """Wait until this worker is a member of the fleet and has looked for partitions.

        Call it beside `arun`; it does not end if that fails before.
        """
        await self._started.wait()
        if self._parts is not None:
            await self._parts.membership.joined.wait()

    def request_stop(self) -> None:
        """Ask for the end, in the loop's thread: the first call drains, the second hurries.

        Nothing is logged: whoever asks knows why, as the command line does.
        """
        if not self._stop.is_set():
            self._stop.set()
        elif self._parts is not None:
            self._parts.handoff.hurry()

    async def handle(self) -> None:
        """Read the partitions held and route each message to its scope's instance."""
        if self._parts is None:
            raise RuntimeError("handle() runs within arun()")
        await self._parts.reader.run()

    async def application_send(self, scope: Any, message: Message) -> None:
        """Take a reply, or an event for Wherry itself, from the instance of a scope.

        Raises:
            ScopeClosed: the instance has ended or its partition is no longer ours.
            MessageError: no ASGI event, does not travel, or too large.
            RepliesTooLarge: more is held for one message than may be.
        """
        scope_id = cast("dict[str, Any]", scope).get("scope_id")
        lane = self._pool.find(scope_id, scope)
        if lane is None or self._parts is None:
            raise ScopeClosed(f"scope {scope_id!r} has no instance here")
        under_way = self._parts.outbox.take(lane, message)
        if under_way is not None:
            await under_way
