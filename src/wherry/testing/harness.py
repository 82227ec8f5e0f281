"""Harness: an application under test, with workers, client, store and clock, in plain functions."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from ..client.client import Client
from ..client.envelope import RequestOptions, SendOptions
from ..config import Config
from ..errors import ApplicationError, ConfigError, HarnessError, MessageFailed, RequestTimeout
from ..model import Application, DeadLetter, EntryId, Message, Reply, Restarted
from ..runtime.frameworks import check_framework
from .failures import Failure, Failures
from .loop import check_thread
from .scene import Scene

_T = TypeVar("_T")

_PARTITIONS = 4


class Harness:
    """Runs an application on real workers, on a store in memory, in a loop whose time stands still.

    Use it as a context manager, in a plain function (not in a coroutine)::

        with Harness(application, durable_state=True) as harness:
            assert harness.request("alice", {"type": "ask"}) == [{"type": "answer"}]

    Nothing runs but in its methods, and no time passes but in those that say so: what takes
    minutes takes milliseconds, and nothing depends on how fast the computer is.

    Attributes:
        url: of the store, for clients of your own; another one for each harness.
    """

    def __init__(self, application: Application, *, workers: int = 1, **settings: Any) -> None:
        """Prepare to run an application.

        Args:
            application: ASGI 3 or ASGI 2, as `wherry.Worker` takes it.
            workers: how many workers share the partitions.
            **settings: fields of `wherry.Config`, such as ``durable_state=True``. With 4
                partitions, unless they say otherwise, it is quicker than with 64.

        Raises:
            ApplicationError: it is no application that handles messages.
            ConfigError: a setting is misspelt or out of range.
        """
        if not callable(application):
            raise ApplicationError(
                f"the application is of type {type(application).__name__!r}, which cannot be "
                "called; give Harness the application itself"
            )
        check_framework(application, "the application")
        if workers < 0:
            raise ConfigError(f"workers is {workers}; it must not be negative")
        self._application = application
        self._workers = workers
        self._config = _make_config(settings)
        self._failures = Failures()
        self._scene: Scene | None = None
        self._is_over = False
        self.url = f"memory://harness-{secrets.token_hex(8)}"

    def __enter__(self) -> Self:
        """Start the workers, and return when they share the partitions.

        Raises:
            StartupFailed: the application failed to start.
            WrongLoop: an event loop is running here.
        """
        if self._scene is not None or self._is_over:
            raise HarnessError("a Harness runs once; make another one")
        check_thread()
        scene = Scene(self.url, self._application, self._config, self._failures)
        try:
            for _ in range(self._workers):
                scene.fleet.start()
            scene.fleet.balance(scene.look)
        except BaseException:
            scene.close(drains=False)
            raise
        self._scene = scene
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the workers drain (a message that never ends is cut off), and forget everything."""
        scene, self._scene, self._is_over = self._scene, None, True
        if scene is not None:
            # What cannot come to rest cannot be asked to end in good order, either.
            scene.close(drains=not isinstance(error, HarnessError))

    def send(
        self, scope_id: str, message: Mapping[str, Any], **options: Unpack[SendOptions]
    ) -> EntryId:
        """Send a message and return the id of its entry; it is not handled yet, see `settle`.

        As `wherry.Client.send`.
        """
        return self.run(lambda client: client.send(scope_id, message, **options))

    def request(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[RequestOptions],
    ) -> list[Message]:
        """Send a message and return all replies to it, moving time until they are there.

        As `wherry.Client.request`; but a `MessageFailed` or `RequestTimeout` is raised *from* the
        error that the application has raised last in this scope, so that its traceback is shown.
        """
        so_far = len(self._failures.kept)
        try:
            return self.run(
                lambda client: client.request(scope_id, message, timeout_s=timeout_s, **options)
            )
        except (MessageFailed, RequestTimeout) as error:
            self.settle()
            reason = self._failures.last_of(scope_id, so_far)
            raise error from reason or error.__cause__

    def request_stream(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[RequestOptions],
    ) -> Generator[Reply | Restarted, None, None]:
        """Send a message and yield the replies to it, moving time just until the next one is there.

        As `wherry.Client.request_stream`. Between two replies the test may do as it likes.
        """
        open_loop = self._running().loop
        events = self._running().client.request_stream(
            scope_id, message, timeout_s=timeout_s, **options
        )

        async def step(_: Client) -> Reply | Restarted | None:
            return await anext(events, None)

        try:
            while (event := self.run(step)) is not None:
                yield event
        finally:
            if not open_loop.is_closed():
                open_loop.run(events.aclose())

    def replies(self, scope_id: str) -> list[Reply]:
        """Settle, and return all replies of a scope that are kept, oldest first.

        Among them are errors (``reply.error``) of messages that expired or were buried. Bare end
        marks are left out, and so is what a dead worker wrote of an answer that began anew.
        """

        async def read(client: Client) -> list[Reply]:
            found: list[Reply] = []
            async for event in client.replies(scope_id):
                if isinstance(event, Restarted):
                    found = [one for one in found if one.cause != event.cause]
                elif event is not None and (event.message is not None or event.error is not None):
                    found.append(event)
            return found

        self.settle()
        return self.run(read)

    def settle(self) -> None:
        """Run until nothing is left to do: every message is finished, or waits for time to pass.

        Time does not move.

        Raises:
            HarnessError: the application is busy without end.
        """
        scene = self._running()
        scene.loop.settle()
        scene.fleet.check()

    def advance(self, seconds: float) -> None:
        """Move the clock: timers, backoffs, leases, expiries and the TTLs of Redis' keys.

        Everything that becomes due on the way is done on the way, at its time.

        Raises:
            HarnessError: as `settle` does, and for negative seconds.
        """
        scene = self._running()
        scene.loop.advance(seconds)
        scene.fleet.check()

    def run_until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Run, moving time as needed, and stop at the very step that makes a condition true.

        So a test can stop the application in the middle of a message, to `crash` a worker there.

        Args:
            condition: asked before each step of the event loop; must not change anything.
            within_s: seconds on the moved clock.

        Raises:
            HarnessError: it did not become true.
        """
        scene = self._running()
        if not scene.loop.run_until(condition, within_s):
            raise HarnessError(f"the condition did not become true within {within_s:g} s")
        scene.fleet.check()

    def run(self, work: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine function with the harness's `wherry.Client`, and return its result.

        Time moves as needed: ``harness.run(lambda client: client.send_many(messages))``.
        """
        scene = self._running()
        scene.loop.check_free()
        scene.fleet.check()
        return scene.loop.run(work(scene.client))

    def crash(self, worker: int = 0, *, restart: bool = True, wait: bool = True) -> None:
        """Kill a worker where it stands: nothing is finished, handed on or released.

        What it had not committed never happened, as far as Redis knows, and will be done again.
        The application's tasks are cancelled, since nothing else ends a coroutine: unlike at a
        real death their ``finally`` blocks run.

        Args:
            worker: which one, counted from 0.
            restart: start another worker in its place.
            wait: move the clock until the dead worker's leases have run out and others have
                taken its partitions over.

        Raises:
            HarnessError: there is no such worker.
        """
        scene = self._running()
        scene.loop.check_free()
        scene.fleet.kill(worker)
        if restart:
            scene.fleet.start()
        if wait:
            scene.fleet.balance(scene.look)

    def add_worker(self) -> None:
        """Start one more worker, and move the clock until all share the partitions."""
        scene = self._running()
        scene.loop.check_free()
        scene.fleet.start()
        scene.fleet.balance(scene.look)

    def dead_letters(self, scope_id: str | None = None) -> list[DeadLetter]:
        """Settle, and return the dead letters of a scope, or of all, oldest first in each."""
        self.settle()
        look = self._running().look
        return self.run(lambda _: look.dead_letters(scope_id))

    def backlog(self) -> int:
        """Settle, and return the number of messages that are not finished."""
        self.settle()
        look = self._running().look
        return self.run(lambda _: look.backlog())

    def state(self, scope_id: str) -> dict[str, Any]:
        """Settle, and return the durable state of a scope as it was last committed, {} if none."""
        self.settle()
        look = self._running().look
        return self.run(lambda _: look.state(scope_id))

    @property
    def failures(self) -> list[Failure]:
        """Every error that the application has raised, oldest first, failed attempts included."""
        return list(self._failures.kept)

    @property
    def elapsed_s(self) -> float:
        """How far the clock has moved since the harness was made, in seconds."""
        return self._running().loop.time()

    def _running(self) -> Scene:
        if self._scene is None:
            raise HarnessError(
                "this Harness is closed: its `with` block has ended; make another one"
                if self._is_over
                else "this Harness is not running: write `with Harness(application) as harness:` "
                "(in unittest: self.harness = self.enterContext(Harness(application)))"
            )
        return self._scene


def _make_config(settings: Mapping[str, Any]) -> Config:
    known = [setting.name for setting in fields(Config)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see wherry.Config"
            raise ConfigError(f"Harness: there is no setting {name!r}; {hint}")
    chosen = dict(settings)
    chosen["partitions"] = settings.get("partitions") or _PARTITIONS
    return Config(**chosen)
