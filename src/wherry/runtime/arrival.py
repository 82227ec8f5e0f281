"""Arrival: how a worker gets to know its Redis, and waits for one that is not there yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..broker.capabilities import find_lacks
from ..broker.connect import CommandLink
from ..broker.scripts import Scripts, fit_scripts
from ..broker.streams import check_eviction, open_namespace
from ..broker.wire import Keys, Meta
from ..config import Config
from ..errors import StoreUnavailable
from ..hooks import Hooks
from .outage import Outage

_CANCEL_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What is known once Redis has answered.

    Attributes:
        scripts: fitted to the server.
        keys: of the namespace.
        meta: of the namespace.
        lacks: what the server lacks, by the names in `wherry.broker.capabilities.MISSED`.
    """

    scripts: Scripts
    keys: Keys
    meta: Meta
    lacks: tuple[str, ...]


class Arrival:
    """The way of one worker to its Redis."""

    __slots__ = ("_config", "_hooks", "_is_memory", "_link")

    def __init__(self, link: CommandLink, config: Config, hooks: Hooks, *, is_memory: bool) -> None:
        """Ask over a link."""
        self._link = link
        self._config = config
        self._hooks = hooks
        self._is_memory = is_memory

    async def reach(self, stop: asyncio.Event) -> Arrived | None:
        """Wait until Redis answers, or for a stop: then None.

        Raises:
            StoreUnavailable: it has not answered for ``start_wait_s``.
            StoreRefused: it refuses the login or a command.
            StoreIncompatible: this namespace, or this server, cannot be used.
        """
        async with asyncio.TaskGroup() as tasks:
            reaching = tasks.create_task(self._try_for_long(), name="arrival")
            stopping = tasks.create_task(stop.wait(), name="arrival:stop")
            await asyncio.wait((reaching, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            while not reaching.done():
                # Again and again: asyncio.wait_for of Python 3.11, under which redis-py writes, may
                # lose a cancellation.
                reaching.cancel()
                await asyncio.wait([reaching], timeout=_CANCEL_AGAIN_S)
        return None if reaching.cancelled() else reaching.result()

    async def _try_for_long(self) -> Arrived:
        outage = Outage("starting", self._hooks)
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self._config.start_wait_s
        while True:
            try:
                arrived = await self._try()
            except StoreUnavailable as error:
                if now_s() >= until_s:
                    raise
                await outage.wait(error)
            else:
                outage.over()
                return arrived

    async def _try(self) -> Arrived:
        scripts = await fit_scripts(self._link, memory=self._is_memory)
        await check_eviction(self._link)
        keys = Keys(self._config.namespace)
        meta = await open_namespace(self._link, keys, self._config.partitions)
        lacks = ()
        if not self._is_memory:
            lacks = await find_lacks(self._link, scripts, keys.released)
        if lacks:
            self._hooks.life("Redis does without some commands", lacks=", ".join(lacks))
        return Arrived(scripts=scripts, keys=keys, meta=meta, lacks=lacks)
