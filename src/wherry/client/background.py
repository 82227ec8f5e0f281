"""Background: a thread with an event loop and a client in it, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from ..errors import ClientClosed
from .client import Client

_T = TypeVar("_T")


class Background:
    """One thread of this process; a forked child has no such thread and needs another object.

    Attributes:
        client: to be used in the thread's loop only.
    """

    __slots__ = ("_is_closed", "_lock", "_loop", "_pid", "_stop", "_thread", "client")

    def __init__(self, client: Client) -> None:
        """Start the thread."""
        self.client = client
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        is_ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(is_ready)), name="wherry-client", daemon=True
        )
        self._thread.start()
        is_ready.wait()

    def run(self, make: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine of the client and wait for it; an interruption cancels it.

        Raises:
            ClientClosed: the thread has ended or is about to.
        """
        # What is submitted before the stop is sure to end: with its result, or cancelled.
        with self._lock:
            if self._is_closed or self._pid != os.getpid():
                raise ClientClosed("this client was closed, or belongs to the parent process")
            future = asyncio.run_coroutine_threadsafe(make(self.client), self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise ClientClosed("this client was closed during the call") from error
        except BaseException:
            future.cancel()
            raise

    def iterate(self, make: Callable[[Client], AsyncGenerator[_T]]) -> Generator[_T, None, None]:
        """Yield what an asynchronous generator of the client yields; closes it at the end."""
        events = make(self.client)

        async def step(_: Client) -> tuple[_T] | None:
            async for event in events:
                return (event,)
            return None

        async def end(_: Client) -> None:
            await events.aclose()

        try:
            while (item := self.run(step)) is not None:
                yield item[0]
        finally:
            try:
                self.run(end)
            except ClientClosed:
                pass  # the loop has ended, and the generator with it

    def close(self, within_s: float | None = None) -> None:
        """Close the client and end the thread; waits for that, at most ``within_s``."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not threading.current_thread():
            self._thread.join(within_s)

    async def _main(self, is_ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        is_ready.set()
        await self._stop.wait()
        await self.client.aclose()
