"""Control: a worker hears what operators ask, answers, and does it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ..broker.control import Deed, Request, read_request, write_answer
from ..broker.link import Link
from ..broker.scripts import Script
from ..broker.wire import Keys
from ..errors import StoreError, StoreRefused, StoreUnavailable
from ..hooks import Hooks
from .looks import Looks

MOST_WAITING = 64
"""More requests than these are dropped; who asked asks again."""


class Control:
    """Serves the requests to one worker, one after another."""

    def __init__(
        self,
        worker_id: str,
        link: Link,
        script: Script,
        keys: Keys,
        looks: Looks,
        end: Callable[[bool], None],
        hooks: Hooks,
    ) -> None:
        """Serve.

        Args:
            worker_id: whose requests.
            link: for the answers.
            script: ``answer.lua``.
            keys: of the namespace.
            looks: tells of scopes.
            end: drains the worker, or with True hands back at once; asked twice it does no more.
            hooks: reports.
        """
        self._worker_id = worker_id
        self._link = link
        self._script = script
        self._keys = keys
        self._looks = looks
        self._end = end
        self._hooks = hooks
        self._waiting: deque[Request] = deque()
        self._work = asyncio.Event()

    def asked(self, data: bytes) -> None:
        """Something was published; what is not for this worker costs no more than to read it."""
        request = read_request(data)
        if request is None:
            self._hooks.detail("a request is not understood", count=len(data))
        elif request.worker in ("", self._worker_id) and len(self._waiting) < MOST_WAITING:
            self._waiting.append(request)
            self._work.set()

    async def run(self) -> None:
        """Serve requests for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                await self._serve(self._waiting.popleft())

    async def _serve(self, request: Request) -> None:
        answer = {"worker": self._worker_id, **await self._found(request)}
        try:
            await write_answer(self._link, self._script, self._keys, request, answer)
        except (StoreUnavailable, StoreRefused, StoreError) as error:
            self._hooks.detail("a request could not be answered", reason=str(error))
        if request.deed in (Deed.DRAIN, Deed.STOP):
            self._hooks.life("asked to end", worker=self._worker_id, effect=request.deed.value)
            self._end(request.deed is Deed.STOP)

    async def _found(self, request: Request) -> dict[str, object]:
        if request.deed is Deed.SCOPES:
            total, rows = await self._looks.scopes(request.order, request.count)
            return {"total": total, "scopes": rows}
        if request.deed is Deed.SCOPE:
            return {"scope": self._looks.scope(request.scope)}
        return {"done": request.deed.value}
