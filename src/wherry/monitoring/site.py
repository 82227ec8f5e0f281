"""Site of a worker: ``/livez``, ``/readyz``, ``/metrics``, and for a supervisor ``/snapshot``."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence

from ..broker.connect import CommandLink, Store
from ..broker.scripts import Scripts, fit_scripts
from ..broker.streams import read_partition_count, read_partitions
from ..broker.wire import Keys
from ..errors import WherryError
from ..model import PartitionInfo
from ..runtime.vitals import Vitals
from .http import Response
from .server import Handler
from .snapshot import Snapshot, take_snapshot

PROOF_WITHIN_S = 1.0
PROOF_HOLDS_S = 0.5
DEPTH_WITHIN_S = 2.0
DEPTH_HOLDS_S = 5.0
TO_INSTALL = (
    "metrics need prometheus-client: pip install 'wherry[metrics]'; /livez and /readyz need "
    "nothing\n"
)


def has_metrics() -> bool:
    """Whether the package is installed that writes metrics."""
    return importlib.util.find_spec("prometheus_client") is not None


def verdict(reasons: list[str]) -> Response:
    """The answer of a probe: 503 if anything speaks against it."""
    body = {"status": "unavailable", "reasons": reasons} if reasons else {"status": "ok"}
    return Response(503 if reasons else 200, json.dumps(body) + "\n", "application/json")


def metrics_of(snapshots: Mapping[str, Snapshot]) -> Response:
    """The answer to a scraper."""
    if not has_metrics():
        return Response(501, TO_INSTALL)
    from .exposition import CONTENT_TYPE, expose

    return Response(200, expose(snapshots), CONTENT_TYPE)


class WorkerSite:
    """Tells of one worker; asks Redis over a connection of its own, seldom and briefly."""

    def __init__(self, vitals: Vitals, store: Store, *, is_for_supervisor: bool = False) -> None:
        """Look at a worker whose data is in a store."""
        self._is_for_supervisor = is_for_supervisor
        self._vitals = vitals
        self._store = store
        self._keys = Keys(vitals.namespace)
        self._link: CommandLink | None = None
        self._scripts: Scripts | None = None
        self._proving = asyncio.Lock()
        self._problem: list[str] = []
        self._proved_at_s = float("-inf")
        self._measuring = asyncio.Lock()
        self._depth: Sequence[PartitionInfo] | None = None
        self._measured_at_s = float("-inf")

    def routes(self) -> Mapping[str, Handler]:
        """See `wherry.monitoring.server.Site`."""
        routes = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        return routes | ({"/snapshot": self._snapshot} if self._is_for_supervisor else {})

    async def aclose(self) -> None:
        """See `wherry.monitoring.server.Site`."""
        if self._link is not None:
            await self._link.aclose()

    async def _livez(self) -> Response:
        return verdict(self._vitals.why_not_live())

    async def _readyz(self) -> Response:
        return verdict(await self._why_not_ready())

    async def _metrics(self) -> Response:
        if not has_metrics():
            return Response(501, TO_INSTALL)
        return metrics_of({"": await self._take()})

    async def _snapshot(self) -> Response:
        return Response(200, (await self._take()).as_json(), "application/json")

    async def _take(self) -> Snapshot:
        reasons = await self._why_not_ready()
        async with self._measuring:
            if time.monotonic() - self._measured_at_s > DEPTH_HOLDS_S:
                self._depth = await self._measure()
                self._measured_at_s = time.monotonic()
        return take_snapshot(self._vitals, self._depth, is_ready=not reasons)

    async def _why_not_ready(self) -> list[str]:
        """What the worker knows, and whether Redis answers just now."""
        reasons = self._vitals.why_not_ready()
        async with self._proving:
            if time.monotonic() - self._proved_at_s > PROOF_HOLDS_S:
                self._problem = await self._prove()
                self._proved_at_s = time.monotonic()
        return reasons + self._problem

    async def _prove(self) -> list[str]:
        """Read something of the namespace; a store in memory is there as long as the process."""
        if self._store.is_memory:
            return []
        try:
            async with asyncio.timeout(PROOF_WITHIN_S):
                await read_partition_count(self._connected(), self._keys)
        except TimeoutError:
            await self._disconnect()
            return [f"Redis does not answer within {PROOF_WITHIN_S:g} s"]
        except WherryError as error:
            return [str(error)]
        return []

    async def _measure(self) -> Sequence[PartitionInfo] | None:
        """What lies in the partitions owned; None if Redis does not tell."""
        if self._problem:
            return None
        link, owned = self._connected(), self._vitals.owned()
        try:
            async with asyncio.timeout(DEPTH_WITHIN_S):
                if self._scripts is None:
                    self._scripts = await fit_scripts(link, memory=self._store.is_memory)
                found = await read_partitions(link, self._scripts, self._keys, owned)
                return [one for one in found if not one.is_away]
        except TimeoutError:
            await self._disconnect()
        except WherryError:
            pass
        return None

    def _connected(self) -> CommandLink:
        if self._link is None:
            self._link = self._store.link(answer_timeout_s=DEPTH_WITHIN_S)
        return self._link

    async def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
