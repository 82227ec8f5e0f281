"""Lifespan: start-up and shutdown of the application, as the ASGI specification says.

One call of the application with a scope of type ``lifespan``, around everything else.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from ..config import Config
from ..errors import StartupFailed
from ..hooks import Hooks
from ..model import Application, Message
from .asgi import ASGI_VERSIONS, single_callable


class Lifespan:
    """An async context: started on entry, shut down on exit.

    Attributes:
        state: what the application keeps for its instances.
    """

    def __init__(self, application: Application, config: Config, hooks: Hooks) -> None:
        """Prepare to call the application."""
        self.state: dict[str, Any] = {}
        self._application = single_callable(application)
        self._mode = config.lifespan
        self._limit_s = config.lifespan_timeout_s
        self._hooks = hooks
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[Message] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Run the start-up.

        Raises:
            StartupFailed: the application says so, raises with ``lifespan`` "on", or does
                not answer in time with ``lifespan`` "on".
        """
        if self._mode == "off":
            return self
        self._task = asyncio.create_task(self._run(), name="lifespan")
        answer = await self._ask("lifespan.startup")
        kind = None if answer is None else answer.get("type")
        if answer is not None and kind == "lifespan.startup.failed":
            await self._end()
            raise StartupFailed(
                f"the application failed to start: {answer.get('message') or 'no reason given'}"
            )
        if kind != "lifespan.startup.complete":
            if self._task.done():
                self._refused()
            else:
                await self._silent()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Run the shutdown; what goes wrong in it is reported."""
        if self._task is None:
            return
        if not self._task.done():
            answer = await self._ask("lifespan.shutdown")
            if answer is not None and answer.get("type") == "lifespan.shutdown.failed":
                self._hooks.warn(
                    "the application failed to shut down", reason=str(answer.get("message"))
                )
        await self._end()

    async def _run(self) -> None:
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": dict(ASGI_VERSIONS),
            "state": self.state,
        }
        await self._application(scope=scope, receive=self._receive, send=self._send)

    async def _receive(self) -> Message:
        if self._inbox.empty() and self._answer is not None and not self._answer.done():
            # A second receive() before the answer: a loop that does not know lifespan.
            self._answer.set_result({"type": "unanswered"})
        return await self._inbox.get()

    async def _send(self, message: Message) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    async def _ask(self, kind: str) -> Message | None:
        """Send an event and wait for its answer; None if none comes."""
        assert self._task is not None
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait({"type": kind})
        await asyncio.wait(
            (answer, self._task),
            timeout=self._limit_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        return answer.result() if answer.done() else None

    def _refused(self) -> None:
        """The application returned or raised instead of answering."""
        assert self._task is not None
        error = None if self._task.cancelled() else self._task.exception()
        if self._mode == "on":
            raise StartupFailed(
                f"the application does not support lifespan ({error or 'it returned'}), "
                "which 'lifespan = on' demands; use auto or off"
            ) from error
        self._hooks.detail("the application does not support lifespan", reason=str(error))
        self._task = None

    async def _silent(self) -> None:
        """The application neither answers nor ends, as a plain receive loop does."""
        await self._end()
        if self._mode == "on":
            raise StartupFailed(
                "the application did not answer lifespan.startup "
                f"(it may take {self._limit_s:g} s), which 'lifespan = on' demands"
            )
        self._hooks.life(
            "the application does not answer lifespan.startup and is run without; "
            "lifespan 'off' does not ask it"
        )

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        if not task.done():
            task.cancel()
        await asyncio.wait([task], timeout=self._limit_s)
        if task.done() and not task.cancelled() and task.exception() is not None:
            self._hooks.warn("the application raised in its lifespan", reason=str(task.exception()))
