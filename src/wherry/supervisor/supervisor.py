"""Supervisor: hears signals, children, changed files and time, and takes the steps they call for.

Everything that happens is put into one inbox and handled here, one after another; what to do is
decided in `wherry.engine.supervision`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

from ..engine.processes import Kill, Life, Start, Step, Tell, Terminate
from ..engine.supervision import Supervision
from ..hooks import Hooks
from .child import Child, Launcher, WorkerInfo

EFFECTS = (
    "drains; a second one hands back at once",
    "hands back; a third kills",
    "kills",
)
"""Of the first, second and third signal to stop, as it is logged."""
FAILED = 1
"""The exit code of what could not even be started."""


class Front(Protocol):
    """Speaks for all workers of a supervisor: one port for their probes and metrics."""

    async def run(self, workers: Callable[[], Sequence[WorkerInfo]]) -> None:
        """Serve until cancelled, which happens when all workers have ended.

        Args:
            workers: gives those that live now; who has no ``worker_id`` is not ready.
        """
        ...


Event = Callable[[float], list[Step]]
"""What happened, as a call of `Supervision` that lacks the time."""


class Supervisor:
    """Keeps the worker processes of one command."""

    def __init__(
        self,
        supervision: Supervision,
        launcher: Launcher,
        hooks: Hooks,
        *,
        front: Front | None = None,
        changes: AsyncIterator[Sequence[str]] | None = None,
    ) -> None:
        """Keep workers.

        Args:
            supervision: decides.
            launcher: starts processes.
            hooks: reports.
            front: speaks for all workers, if anybody is to.
            changes: names changed files, each time that some have changed.
        """
        self._supervision = supervision
        self._launcher = launcher
        self._hooks = hooks
        self._front = front
        self._changes = changes
        # Holds what signals and children cause: it needs no bound.
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._children: dict[int, Child] = {}
        self._stops = 0
        self._has_terminal = sys.stderr.isatty()

    def workers(self) -> Sequence[WorkerInfo]:
        """Those that live now."""
        return [child.info for child in self._children.values()]

    async def run(self) -> int:
        """Work until stopped, or until no worker can be started; returns the exit code."""
        self._hear_signals()
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(coroutine, name=name)
                for name, coroutine in (
                    ("front", self._front.run(self.workers) if self._front else None),
                    ("changes", self._follow(self._changes) if self._changes else None),
                )
                if coroutine is not None
            ]
            await self._take(self._supervision.wake, tasks)
            while not self._supervision.is_over:
                await self._take(await self._next(), tasks)
            for task in beside:
                task.cancel()
        return self._supervision.exit_code

    async def _next(self) -> Event:
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(self._supervision.due_at_s(now_s)):
                return await self._inbox.get()
        except TimeoutError:
            return self._supervision.wake

    async def _take(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        for step in event(asyncio.get_running_loop().time()):
            match step:
                case Start():
                    await self._start(step, tasks)
                case Terminate():
                    self._send_signal(step.number, signal.SIGTERM)
                case Kill():
                    self._send_signal(step.number, signal.SIGKILL)
                case Tell():
                    self._tell(step)

    async def _start(self, step: Start, tasks: asyncio.TaskGroup) -> None:
        try:
            child = await self._launcher.start(step.number, step.slot)
        except OSError as error:  # too many processes, no memory
            self._hooks.warn("a process cannot be started", reason=str(error))
            self._inbox.put_nowait(partial(self._supervision.ended, step.number, FAILED))
            return
        self._children[step.number] = child
        tasks.create_task(self._watch(step.number, child), name=f"child:{step.number}")

    def _send_signal(self, number: int, which: signal.Signals) -> None:
        child = self._children.get(number)
        if child is not None:
            child.send_signal(which)

    async def _watch(self, number: int, child: Child) -> None:
        supervision, inbox = self._supervision, self._inbox
        code = await child.watch(
            lambda: inbox.put_nowait(partial(supervision.ready, number)),
            lambda reason: inbox.put_nowait(partial(supervision.recycle, number, reason)),
        )

        def ended(now_s: float) -> list[Step]:
            steps = supervision.ended(number, code, now_s)
            # Removed with the next event: what is told of it names its process.
            inbox.put_nowait(partial(self._remove, number))
            return steps

        inbox.put_nowait(ended)

    def _remove(self, number: int, now_s: float) -> list[Step]:
        del self._children[number]
        return []

    async def _follow(self, changes: AsyncIterator[Sequence[str]]) -> None:
        try:
            async for names in changes:
                self._hooks.life("the code has changed; workers are replaced", files=list(names))
                self._inbox.put_nowait(self._supervision.renew)
        except OSError as error:  # no such directory, too many watches
            self._hooks.warn("changes of the code are not seen", reason=str(error))

    def _tell(self, step: Tell) -> None:
        data = dict(step.data)
        child = self._children.get(step.number) if step.number is not None else None
        if child is not None:
            data = {"pid": child.info.pid, "worker": child.info.worker_id} | data
        if isinstance(number := data.get("signal"), int):
            data["signal"] = signal.Signals(number).name
        say = self._hooks.warn if step.is_warning else self._hooks.life
        say(step.event, **data)

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGUSR1, self._show)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _stop(self, number: signal.Signals) -> None:
        effect = EFFECTS[min(self._stops, len(EFFECTS) - 1)]
        self._stops += 1
        self._hooks.life("signal received", signal=signal.Signals(number).name, effect=effect)
        self._inbox.put_nowait(self._supervision.stop)

    def _hang_up(self) -> None:
        """Restart all, unless the signal comes because the terminal was closed."""
        if self._has_terminal and not os.isatty(sys.stderr.fileno()):
            if not self._stops:
                self._stop(signal.SIGHUP)
            return
        self._hooks.life("signal received", signal="SIGHUP", effect="replaces all workers")
        self._inbox.put_nowait(self._supervision.renew)

    def _show(self) -> None:
        """Show the processes, and let each show what it is at."""
        lines = [f"wherry supervisor (pid {os.getpid()}): {len(self._children)} processes"]
        for number, child in self._children.items():
            process = self._supervision.processes.get(number)
            life = process.life if process is not None else None
            name = child.info.worker_id or "(not ready)"
            lines.append(
                f"  slot {child.info.slot}  pid {child.info.pid}  "
                f"{life.value if life is not None else 'ended'}  {name}"
            )
            # Who is not ready may not hear it yet, and would die of it.
            if child.info.worker_id and life in (Life.SERVING, Life.STOPPING):
                child.send_signal(signal.SIGUSR1)
        sys.stderr.write("\n".join([*lines, ""]))
        sys.stderr.flush()
