"""Agenda: which callback of the event loop runs next, decided by a seed.

Each worker stands for a process with an event loop of its own: what is ready in one worker runs
in the order in which it became ready, as asyncio promises, while the workers overtake each other
in any order. A frozen worker runs nothing, and its timers ring when it is thawed: so does a
process that was stopped, or whose application blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wherry.testing.loop import VirtualLoop

_T = TypeVar("_T")

NODE: contextvars.ContextVar[str] = contextvars.ContextVar("simulated-node", default="")
"""Whose code runs; "" is the world: Redis, the network and the story."""


class Agenda:
    """Stands in the place of the loop's queue of ready callbacks."""

    def __init__(self, chance: random.Random, idle: asyncio.Handle) -> None:
        self._random = chance.random
        self._idle = idle
        self._queues: dict[str, deque[asyncio.Handle]] = {}
        self._runnable: list[str] = []
        self._frozen: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, handle: Any) -> None:
        """A callback is ready."""
        node = handle._context.get(NODE, "")
        queue = self._queues.get(node)
        if queue is None:
            queue = self._queues[node] = deque()
        if node not in self._frozen:
            self._count += 1
            if not queue:
                self._runnable.append(node)
        queue.append(handle)

    def popleft(self) -> asyncio.Handle:
        """The callback that runs now: the first one of any worker."""
        runnable = self._runnable
        if not runnable:
            return self._idle  # the one that just ran has frozen the rest
        place = int(self._random() * len(runnable))
        queue = self._queues[runnable[place]]
        handle = queue.popleft()
        self._count -= 1
        if not queue:
            del runnable[place]
        return handle

    def freeze(self, node: str) -> None:
        """Run nothing of a worker until it is thawed."""
        if node not in self._frozen:
            self._frozen.add(node)
            queue = self._queues.get(node)
            if queue:
                self._runnable.remove(node)
                self._count -= len(queue)

    def thaw(self, node: str) -> None:
        """Run it again."""
        if node in self._frozen:
            self._frozen.remove(node)
            queue = self._queues.get(node)
            if queue:
                self._runnable.append(node)
                self._count += len(queue)

    def clear(self) -> None:
        """Forget everything; the loop is closed."""
        self._queues.clear()
        self._runnable.clear()
        self._count = 0


class SimulatedLoop(VirtualLoop):
    """An event loop with virtual time and an `Agenda`."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        idle = asyncio.Handle(lambda: None, (), self)
        idle.cancel()
        self.agenda = Agenda(chance, idle)
        self._ready: Any = self.agenda

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There is one thread only, and nobody sleeps in a system call."""
        return self.call_soon(callback, *args, context=context)

    def start_node(self, node: str, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task as the main task of a node; what it starts belongs to the node, too."""
        context = contextvars.copy_context()
        context.run(NODE.set, node)
        return context.run(lambda: self.start(work, name=node, group=node))

    def at(self, seconds: float, callback: Callable[[], object]) -> None:
        """Let the world do something later."""
        in_world(self.call_later, seconds, callback)

    def step(self, turns: int) -> None:
        """Run so many turns of the loop, moving time where nothing else is left."""
        left = turns

        def is_over() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        self.run_until(is_over, 0.01)


_WORLD = contextvars.Context()


def in_world(function: Callable[..., _T], *args: Any) -> _T:
    """Call a function as the world: what it schedules belongs to no worker."""
    if NODE.get() == "":
        return function(*args)
    return _WORLD.run(function, *args)
