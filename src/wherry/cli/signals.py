"""Signals of a worker process: the one place that hears them.

TERM and INT: the first drains, the second hands back at once, a third kills. HUP drains, once:
whoever supervises the worker starts another. USR1 prints what the process is at.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Protocol

from ..hooks import Hooks
from ..supervisor.picture import Working, describe, place_of
from .exits import ExitCode

_STOP = (signal.SIGINT, signal.SIGTERM)
# Windows has neither.
_HANG_UP = () if sys.platform == "win32" else (signal.SIGHUP,)
_SHOW = () if sys.platform == "win32" else (signal.SIGUSR1,)


class Worker(Working, Protocol):
    """What signals are for; see `wherry.worker.Worker`."""

    def request_stop(self) -> None:
        """Drain; hand back at once when it is called again."""
        ...


class Signals:
    """What one process has heard.

    Plain handlers, not the loop's: they run between two instructions of an application that
    keeps the loop busy, so that the third signal is heard even then.
    """

    def __init__(self, hooks: Hooks) -> None:
        """Report to hooks; hears nothing yet."""
        self._hooks = hooks
        self._heard = 0
        self._is_draining = False
        self._is_over = False
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def starting(self) -> Generator[None]:
        """Before the worker runs there is nothing to drain: signals just end the process.

        SIGTERM needs a handler even so: the first process of a container ignores what has none.
        """

        def hear(_number: int, _: FrameType | None) -> None:
            self._is_over = True
            raise KeyboardInterrupt

        def show(_number: int, frame: FrameType | None) -> None:
            place = place_of(frame)
            print(f"wherry worker (pid {os.getpid()}) is starting: {place}", file=sys.stderr)

        atexit.register(self._go_deaf)
        with _handlers((*_STOP, *_HANG_UP), hear), _handlers(_SHOW, show):
            yield

    @contextlib.contextmanager
    def serving(self, worker: Worker) -> Generator[None]:
        """While the worker runs; enter it in the loop's thread. Then the process is to end.

        Raises:
            KeyboardInterrupt: a signal was heard before, and what it raised was swallowed, as
                Python does in a finalizer.
        """
        if self._is_over:
            raise KeyboardInterrupt
        self._worker, self._loop = worker, asyncio.get_running_loop()
        with (
            _handlers(_STOP, self._hear),
            _handlers(_HANG_UP, self._hang_up),
            _handlers(_SHOW, self._show),
        ):
            try:
                yield
            finally:
                self._expect_the_end()

    def _expect_the_end(self) -> None:
        """The worker has ended; until the process has, only a third signal changes its code."""
        for one in (*_STOP, *_HANG_UP, *_SHOW):
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, self._hear_late)

    def _go_deaf(self) -> None:
        """Python gives up its handlers for its last steps, and what has none ends the process."""
        for one in (*_STOP, *_HANG_UP, *_SHOW):
            if signal.getsignal(one) == self._hear_late:
                signal.signal(one, signal.SIG_IGN)

    def drain(self) -> bool:
        """Let the worker drain, in the loop's thread; False if it does already."""
        if self._is_draining or self._worker is None:
            return False
        self._is_draining = True
        self._worker.request_stop()
        return True

    def orphaned(self, limit_s: float) -> None:
        """The supervisor is gone: drain, and do not outlive that; in a thread of its own."""
        self._hooks.warn("the supervisor is gone; this worker drains and ends")
        if not self._heard:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(limit_s)  # the process ends meanwhile, unless its loop does not turn
        os._exit(ExitCode.CRASHED)

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._heard += 1
        if self._heard >= 2:
            for one in _STOP:
                signal.signal(one, signal.SIG_DFL)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop, number)

    def _hear_late(self, number: int, _: FrameType | None) -> None:
        """Only a third one ends the process: the application's threads may keep it for long."""
        self._heard += number in _STOP
        if self._heard > 2:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _stop(self, number: int) -> None:
        is_first = self._heard <= 1
        effect = (
            "drains; a second one hands back at once" if is_first else "hands back; a third kills"
        )
        self._hooks.life("signal received", signal=signal.Signals(number).name, effect=effect)
        if not self.drain() and not is_first and self._worker is not None:
            self._worker.request_stop()

    def _hang_up(self, _number: int, _: FrameType | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._drain_once)

    def _drain_once(self) -> None:
        if self.drain():
            effect = "drains; whoever supervises this worker may start another"
            self._hooks.life("signal received", signal="SIGHUP", effect=effect)

    def _show(self, _number: int, frame: FrameType | None) -> None:
        assert self._worker is not None
        assert self._loop is not None
        print(describe(self._worker, self._loop, frame), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _handlers(
    numbers: Sequence[signal.Signals], hear: Callable[[int, FrameType | None], None]
) -> Generator[None]:
    """Handlers for a while; one that was replaced meanwhile is left as it is."""
    before = {
        one: signal.signal(one, hear)
        for one in numbers
        if signal.getsignal(one) is not signal.SIG_IGN or one in _STOP  # as nohup wants it
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            if signal.getsignal(one) == hear:
                signal.signal(one, handler)
