"""Site of a supervisor: one port speaks for all of its workers.

Each worker serves its own site on a private unix socket (`listen_unix`); here they are asked, all
at once, and named.

- ``/livez`` is 503 when workers answer and none of them is live. One that does not answer is being
  started, and its supervisor's business: whoever restarts the whole for that would only be in the
  way.
- ``/readyz`` is 503 when none is ready.
- ``/metrics`` has the metrics of all that answer, with the label ``worker``.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from ..hooks import Hooks
from .http import Response
from .server import Handler, Server
from .site import TO_INSTALL, has_metrics, metrics_of
from .snapshot import Snapshot

ANSWER_WITHIN_S = 4.0
ANSWER_BYTES = 2**20
_SILENT = "does not answer; it may be starting"

Workers = Callable[[], Mapping[str, Path]]
"""Name -> unix socket of each worker there is now."""


class WorkerInfo(Protocol):
    """What a supervisor knows of a worker; see `wherry.supervisor.child.WorkerInfo`."""

    @property
    def pid(self) -> int:
        """Of the process."""
        ...

    @property
    def worker_id(self) -> str:
        """Its name in the fleet; "" before it is ready."""
        ...

    @property
    def probes_socket(self) -> Path:
        """Where it serves its site."""
        ...


class Front:
    """Speaks for all workers of a supervisor on one socket, in the supervisor's own loop."""

    def __init__(self, listening: socket.socket, hooks: Hooks) -> None:
        """Take over a listening socket."""
        self._listening = listening
        self._hooks = hooks

    async def run(self, workers: Callable[[], Sequence[WorkerInfo]]) -> None:
        """Serve until cancelled; ``workers`` gives those that live now."""

        def by_name() -> dict[str, Path]:
            return {one.worker_id or f"pid {one.pid}": one.probes_socket for one in workers()}

        server = Server(self._listening, FleetSite(by_name), self._hooks)
        self._hooks.life("probes and metrics are served", address=server.address)
        await server.serve()


class FleetSite:
    """Tells of the workers of one supervisor."""

    def __init__(self, workers: Workers) -> None:
        """Ask those that ``workers`` names at that moment."""
        self._workers = workers

    def routes(self) -> Mapping[str, Handler]:
        """See `wherry.monitoring.server.Site`."""
        return {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}

    async def aclose(self) -> None:
        """See `wherry.monitoring.server.Site`."""

    async def _livez(self) -> Response:
        answers = await self._ask("/livez")
        heard = [answer for answer in answers.values() if answer is not None]
        return _verdict(answers, not heard or any(_is_ok(answer) for answer in heard))

    async def _readyz(self) -> Response:
        answers = await self._ask("/readyz")
        return _verdict(answers, any(_is_ok(answer) for answer in answers.values()))

    async def _metrics(self) -> Response:
        if not has_metrics():
            return Response(501, TO_INSTALL)
        snapshots: dict[str, Snapshot] = {}
        for answer in (await self._ask("/snapshot")).values():
            if answer is not None and _is_ok(answer):
                # Named by itself: who is not ready has no name here yet.
                snapshot = Snapshot.from_json(answer.body)
                snapshots[snapshot.worker] = snapshot
        return metrics_of(snapshots)

    async def _ask(self, path: str) -> dict[str, Response | None]:
        """What each worker answers, None where it does not."""
        async with asyncio.TaskGroup() as tasks:
            asked = {
                name: tasks.create_task(_get(socket_path, path), name=f"ask:{name}")
                for name, socket_path in sorted(self._workers().items())
            }
        return {name: task.result() for name, task in asked.items()}


async def _get(socket_path: Path, path: str) -> Response | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_unix_connection(socket_path, limit=ANSWER_BYTES)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read(ANSWER_BYTES)
                while more := await reader.read(ANSWER_BYTES):
                    body += more
            finally:
                writer.close()
        return Response(int(head.split(b" ", 2)[1]), body.decode())
    except (OSError, TimeoutError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError):
        return None


def _is_ok(answer: Response | None) -> bool:
    return answer is not None and answer.status == 200


def _verdict(answers: Mapping[str, Response | None], is_ok: bool) -> Response:
    workers = {name: _told(answer) for name, answer in answers.items()}
    body = {"status": "ok" if is_ok else "unavailable", "workers": workers}
    return Response(200 if is_ok else 503, json.dumps(body) + "\n", "application/json")


def _told(answer: Response | None) -> dict[str, Any]:
    """What a worker's probe said."""
    if answer is not None:
        try:
            return cast("dict[str, Any]", json.loads(answer.body))
        except ValueError:
            pass
    return {"status": "unavailable", "reasons": [_SILENT]}
