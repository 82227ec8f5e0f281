"""Fleet: the workers under test, in one virtual loop and on one store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..broker.connect import Store
from ..config import Config
from ..errors import HarnessError
from ..hooks import Hooks
from ..model import Application
from ..worker import Worker
from .look import Look
from .loop import VirtualLoop

_MOST_BEATS = 20
_MARGIN_S = 60.0


@dataclass(slots=True, eq=False)
class _Member:
    """A running worker.

    Attributes:
        worker: itself.
        task: its run.
    """

    worker: Worker
    task: asyncio.Task[None]


class Fleet:
    """Starts, kills and drains workers. Not one of its functions is a coroutine."""

    def __init__(
        self,
        loop: VirtualLoop,
        application: Application,
        store: Store,
        config: Config,
        hooks: Hooks,
    ) -> None:
        """Start with none."""
        self._loop = loop
        self._application = application
        self._store = store
        self._config = config
        self._hooks = hooks
        self._members: list[_Member] = []
        self._started = 0

    def __len__(self) -> int:
        """Number of workers that run."""
        return len(self._members)

    def start(self) -> None:
        """Start a worker, and return when it is a member and has claimed what is free.

        Raises:
            WherryError: what ended it instead.
        """
        worker = Worker(self._application, self._store, self._config, hooks=self._hooks)
        name = worker.worker_id = f"worker-{self._started}"
        self._started += 1
        task = self._loop.start(worker.arun(), name=name, group=name)
        ready = self._loop.start(worker.ready(), name=f"ready:{name}", group=name)
        self._members.append(_Member(worker, task))
        self._loop.run_until(lambda: ready.done() or task.done())
        self.check()

    def kill(self, number: int) -> None:
        """End a worker as a SIGKILL would; those behind it move up one place.

        Raises:
            HarnessError: there is no such worker.
        """
        if not 0 <= number < len(self._members):
            raise HarnessError(f"there is no worker {number}; {len(self._members)} are running")
        self._loop.kill(self._members.pop(number).worker.worker_id)

    def check(self) -> None:
        """See whether all workers run.

        Raises:
            BaseException: what ended one that nobody asked to end.
        """
        for member in list(self._members):
            if member.task.done():
                self._members.remove(member)
                self._loop.kill(member.worker.worker_id)
                member.task.result()
                raise HarnessError(f"{member.worker.worker_id} has ended by itself")

    def balance(self, look: Look) -> None:
        """Move time on until the workers own all partitions, each its share; or give up."""
        living = [member.worker.worker_id for member in self._members]
        for _ in range(_MOST_BEATS):
            owners = self._loop.run(look.owners())
            counts = [owners.count(one) for one in living]
            if not living or (sum(counts) == len(owners) and max(counts) - min(counts) <= 1):
                return
            self._loop.advance(self._config.beat_s)
            self.check()

    def drain(self) -> None:
        """Let all workers finish what runs, hand everything on, and end.

        Raises:
            HarnessError: one does not end.
            BaseException: what ended one instead.
        """
        members, self._members = self._members, []
        for member in members:
            member.worker.request_stop()
        config = self._config
        limits_s = config.drain_timeout_s + config.end_timeout_s + config.lifespan_timeout_s
        self._loop.run_until(
            lambda: all(member.task.done() for member in members), 2 * limits_s + _MARGIN_S
        )
        for member in members:
            if not member.task.done():
                raise HarnessError(f"{member.worker.worker_id} did not end when it was asked to")
            member.task.result()
