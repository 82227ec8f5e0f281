"""StatelessServer: the class that servers without connections are built on.

A drop-in for ``asgiref.server.StatelessServer``: the same names, the same calls, without the
faults (``docs/from-runworker.md`` lists them).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from ..hooks import Hooks
from ..model import Application, Message
from .inbox import Inbox
from .instances import Instances
from .lane import Lane
from .policy import Untracked
from .pool import Pool


class StatelessServer:
    """Base of servers for protocols without connections.

    Override `handle` (take messages from wherever they come and put them into the queue that
    `get_or_create_application_instance` gives) and `application_send` (take what applications
    send).

    Attributes:
        application: ASGI 3 or ASGI 2 application; may be replaced while running.
        max_applications: most instances; may be changed while running. The least recently used
            *idle* one is ended to make room; when all are busy, a new one waits for room.
        application_checker_interval: seconds. Nothing waits for it here: errors are told as they
            happen. It is kept for code that overrides `application_checker`.
    """

    application_checker_interval: float = 0.1

    def __init__(self, application: Application, max_applications: int = 1000) -> None:
        """Serve an application."""
        self.application = application
        self._max_applications = max_applications
        self._hooks = Hooks()
        self._use_pool(Pool(self, Untracked(), self._hooks, end_timeout_s=5.0))

    def _use_pool(self, pool: Pool) -> None:
        self._pool = pool
        self._instances = Instances(
            pool.lanes, lambda lane: pool.end(lane, at_once=False), pool.failures
        )

    @property
    def application_instances(self) -> MutableMapping[Any, Any]:
        """Scope id -> what is kept of its instance.

        That is a mapping with ``input_queue``, ``future`` (the task; cancelling it ends the
        instance), ``scope`` and ``last_used`` (Unix time, seconds; the instance with the smallest
        is the next to be ended). An instance that is removed from here ends when it has handled
        its message.
        """
        return self._instances

    @application_instances.setter
    def application_instances(self, instances: Mapping[Any, Any]) -> None:
        """Remove all, and put others in their place."""
        self._instances.clear()
        self._instances.update(instances)

    @property
    def max_applications(self) -> int:
        """Most instances; may be changed while running, from any thread."""
        return self._max_applications

    @max_applications.setter
    def max_applications(self, count: int) -> None:
        self._max_applications = count
        self._pool.make_room()

    def run(self) -> None:
        """Run the server in an event loop of its own; works in any thread.

        Returns when `handle` returns, or at an interrupt from the keyboard.
        """
        try:
            asyncio.run(self.arun())
        except KeyboardInterrupt:
            self._hooks.life("Exiting due to Ctrl-C/interrupt")

    async def arun(self) -> None:
        """Run the server: `handle` beside `application_checker`, until `handle` returns.

        All instances have ended when it returns, and all errors have been told. What `handle` or
        an overridden `application_checker` raises is raised.
        """
        error: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                # Beside the checker, because that one may be overridden.
                reporter = tasks.create_task(self._pool.failures.serve(self._tell), name="reporter")
                checker = tasks.create_task(self.application_checker(), name="checker")
                try:
                    await self.handle()
                finally:
                    await self._end()
                    reporter.cancel()
                    checker.cancel()
        except BaseExceptionGroup as group:
            error = group.exceptions[0]
        if error is not None:
            raise error  # out of the handler, which would change its context

    async def _end(self) -> None:
        timeout_s = self._pool.end_timeout_s or None
        await self._instances.end_foreign(timeout_s)
        await self._pool.end_all()
        try:
            async with asyncio.timeout(timeout_s):
                await self._pool.failures.flush(self._tell)
        except TimeoutError:
            self._hooks.warn("application_exception() takes too long at the end of the server")

    async def handle(self) -> None:
        """Take messages and put them into the queues of their scopes; override it."""
        raise NotImplementedError("You must implement handle()")

    async def application_send(self, scope: Any, message: Message) -> None:
        """Take a message that an application sends; override it."""
        raise NotImplementedError("You must implement application_send()")

    def get_or_create_application_instance(self, scope_id: Any, scope: Any) -> Inbox:
        """The queue (``put``, ``put_nowait``) of a scope; a new instance starts at once.

        Needs a running event loop. What is put into the queue of an instance that has ended goes
        to the scope's next instance.
        """
        foreign = self._instances.foreign.get(scope_id)
        if foreign is not None:
            foreign["last_used"] = time.time()
            return foreign["input_queue"]
        return self._pool.get_or_create(scope_id, scope).input_queue

    def delete_oldest_application_instance(self) -> None:
        """End the least recently used idle instance.

        While all are busy the least recently used of them is taken: it is no longer in
        ``application_instances``, handles its message, and ends then.
        """
        idle, foreign = self._pool.oldest(), self._instances.foreign
        if foreign:
            scope_id, details = min(foreign.items(), key=lambda one: one[1]["last_used"])
            if idle is None or details["last_used"] < idle.last_used:
                self.delete_application_instance(scope_id)
                return
        if idle is not None:
            self.delete_application_instance(idle.scope_id)
        elif self._pool.lanes:
            busy = min(self._pool.lanes.values(), key=lambda lane: lane.last_used)
            self._pool.end(busy, at_once=False)

    def delete_application_instance(self, scope_id: Any) -> None:
        """End an instance at once, busy or not.

        Raises:
            KeyError: there is none of that scope.
        """
        details = self._instances[scope_id]
        if isinstance(details, Lane):
            self._pool.end(details)
        else:
            del self._instances[scope_id]
            details["future"].cancel()

    async def application_checker(self) -> None:
        """Report errors of applications as they happen; runs beside `handle`.

        An error raised by `application_exception` is reported and changes nothing.
        """
        await self._pool.failures.serve(self._tell)

    async def _tell(self, error: BaseException, details: Any) -> None:
        """Call `application_exception`, which may raise what it likes."""
        if isinstance(details, Lane):
            self._instances.told = details
        try:
            await self.application_exception(error, details)
        except asyncio.CancelledError as raised:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._hooks.failed("application_exception() raised", raised)
        except Exception as raised:  # noqa: BLE001 - user code's hook
            self._hooks.failed("application_exception() raised", raised)
        finally:
            self._instances.told = None

    async def application_exception(
        self, exception: BaseException, application_details: Any
    ) -> None:
        """Called with each error of an application and the instance's mapping; logs it."""
        self._pool.failures.log(exception, application_details)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error; cancellation of the whole is not in the group."""
    error = group.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return first_error(cast("BaseExceptionGroup[BaseException]", error))
    return error
