"""VirtualLoop: an event loop whose time stands still unless somebody moves it.

Its law: as long as anything can run it runs, and no time passes. When nothing is left but timers,
time jumps to the next one if the caller allows it, and the loop stops if not. So a test that
waits for hours takes milliseconds, and the same test takes the same steps every time.

What happens outside the loop takes real time. While jobs run in executor threads
(``asyncio.to_thread``, ``sync_to_async``) the loop waits for them and time stands still. While
sockets are open, time never passes faster than the computer's, unless it is moved on purpose.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from ..errors import HarnessError, WrongLoop
from .pace import Pace, Reached, Rested

_T = TypeVar("_T")

PATIENCE_S = 30.0
_ROUNDS = 100
_group: contextvars.ContextVar[str] = contextvars.ContextVar("wherry-testing-group", default="")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that is run in steps, by plain function calls.

    Tasks may be started as a group: those that they start in turn, at any depth, belong to it,
    and can be ended together, as the death of a process would end them.

    None of its functions works within a running event loop; they raise `WrongLoop` there.
    """

    def __init__(
        self,
        *,
        on_move: Callable[[float], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Make a loop whose time starts at 0.

        Args:
            on_move: called with the new time whenever time has moved, before what is due runs.
            patience_s: real seconds in which something must come to an end, or time must move.
        """
        self._pace = Pace(on_move, patience_s)
        self._groups: dict[str, dict[asyncio.Task[Any], None]] = {}
        super().__init__(self._pace)
        self._pace.is_ready()

    def time(self) -> float:
        """Seconds by the loop's own clock."""
        return self._pace.now_s

    def check_free(self) -> None:
        """See whether the loop can be run from here.

        Raises:
            WrongLoop: an event loop is running in this thread, or this one in another.
        """
        check_thread()
        if self.is_running():
            raise WrongLoop("the harness is being used by another thread; use it from one only")

    def settle(self) -> None:
        """Run until nothing is left that could run now; time does not move.

        Raises:
            HarnessError: it never rests.
        """
        self._drive(self.time(), is_moved=True)

    def advance(self, seconds: float) -> None:
        """Move time on, from timer to timer, running what is due on the way.

        Raises:
            HarnessError: negative, or at some point it never rests.
        """
        if not (seconds >= 0 and math.isfinite(seconds)):
            raise HarnessError(f"advance({seconds}): time moves forward only, by finite seconds")
        self._drive(self.time() + seconds, is_moved=True)

    def run_until(self, condition: Callable[[], bool], within_s: float = math.inf) -> bool:
        """Run, moving time as needed, and stop at the very step that makes a condition true.

        Args:
            condition: asked before each step; must not change anything.
            within_s: most that time may move.

        Returns:
            Whether it became true; False if there is nothing left to do before.

        Raises:
            HarnessError: it never rests.
        """
        return self._drive(self.time() + within_s, until=condition)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end, moving time as needed, and return its result.

        Raises:
            HarnessError: it waits for something that nothing will bring.
        """
        try:
            self.check_free()
        except WrongLoop:
            work.close()
            raise
        task = self.create_task(work)
        try:
            if self.run_until(task.done):
                return task.result()
        except BaseException:
            task.cancel()
            raise
        task.cancel()
        self.settle()
        raise HarnessError("a call waits for something that nothing will bring; nothing is left "
                           "that could run, not even a timer")  # fmt: skip

    def start(self, work: Coroutine[Any, Any, _T], *, name: str, group: str) -> asyncio.Task[_T]:
        """Start a task in a group; it runs when the loop is next run."""
        context = contextvars.copy_context()
        context.run(_group.set, group)
        return self.create_task(work, name=name, context=context)

    def create_task(
        self, coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T], **options: Any
    ) -> asyncio.Task[_T]:
        """Start a task, as asyncio does; it belongs to the group of whoever starts it."""
        task = super().create_task(coro, **options)
        context: contextvars.Context | None = options.get("context")
        group = _group.get() if context is None else context.get(_group, "")
        # In the order of their birth: a set would end them in another order each time.
        members = self._groups.setdefault(group, {})
        members[task] = None
        task.add_done_callback(lambda _: members.pop(task, None))
        return task

    def kill(self, group: str) -> None:
        """End all tasks of a group without a chance to do anything that takes time.

        They are cancelled, again and again if need be; whatever they raise is nobody's business.

        Raises:
            HarnessError: one does not end.
        """
        self.check_free()
        tasks = self._groups.get(group, {})
        for _ in range(_ROUNDS):
            for task in list(tasks):
                task.add_done_callback(_see)
                task.cancel()
            self.settle()
            if not tasks:
                self._groups.pop(group, None)
                return
        raise HarnessError(
            f"a task does not end though it was cancelled {_ROUNDS} times: {next(iter(tasks))!r}; "
            "let CancelledError pass through"
        )

    def finish(self) -> None:
        """End every task, generator and executor of the loop, and close it.

        Raises:
            HarnessError: a task does not end; the loop is closed all the same.
        """
        try:
            for group in list(self._groups):
                self.kill(group)
            self.run(self.shutdown_asyncgens())
            self.run(self.shutdown_default_executor())
        finally:
            self.close()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Run a function in a thread, as asyncio does; until it ends time stands still."""
        future = super().run_in_executor(executor, func, *args)
        self._pace.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """End the executor's threads, as asyncio does."""
        self._pace.jobs += 1
        try:
            await super().shutdown_default_executor(*args, **options)
        finally:
            self._pace.jobs -= 1

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._pace.jobs -= 1

    def _drive(
        self,
        to_s: float,
        *,
        until: Callable[[], bool] | None = None,
        is_moved: bool = False,
    ) -> bool:
        self.check_free()
        self._pace.begin(to_s, until, is_moved=is_moved)
        try:
            while True:
                self.run_forever()
        except Reached:
            return True
        except Rested:
            return False


def check_thread() -> None:
    """See whether an event loop could be run here.

    Raises:
        WrongLoop: one is running in this thread already.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongLoop(
        "the harness runs an event loop of its own and cannot be used while another one runs "
        "here: call it from a plain function (def test_...), not from a coroutine, nor from the "
        "application; a coroutine can use wherry.Worker and wherry.Client on a memory:// store"
    )


def _see(task: asyncio.Task[Any]) -> None:
    """Mark an error as seen, or asyncio would tell it when the task is collected."""
    if not task.cancelled():
        task.exception()
