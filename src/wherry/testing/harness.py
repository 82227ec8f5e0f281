"""Harness: an application under test, with workers, client, store and clock, in plain functions."""

from __future__ import annotations

import difflib
import secrets
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from ..broker.connect import SyncLink, open_store
from ..broker.memory import CLOCK_KEY, drop_memory, memory_server
from ..broker.wire import Keys
from ..client.client import Client
from ..client.envelope import RequestOptions, SendOptions
from ..config import Config
from ..errors import ApplicationError, ConfigError, HarnessError, MessageFailed, RequestTimeout
from ..model import Application, EntryId, Message, Reply, Restarted
from ..runtime.frameworks import check_framework
from .failures import Failure, Failures
from .fleet import Fleet
from .look import DeadLetter, Look
from .loop import VirtualLoop, check_thread

_T = TypeVar("_T")

_PARTITIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """What there is between ``__enter__`` and ``__exit__``."""

    loop: VirtualLoop
    fleet: Fleet
    client: Client
    look: Look


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
        self._stack = ExitStack()
        self._running: _Running | None = None
        self._is_over = False
        self.url = f"memory://harness-{secrets.token_hex(8)}"

    def __enter__(self) -> Self:
        """Start the workers, and return when they share the partitions.

        Raises:
            StartupFailed: the application failed to start.
            WrongLoop: an event loop is running here.
        """
        if self._running is not None or self._is_over:
            raise HarnessError("a Harness runs once; make another one")
        check_thread()
        try:
            self._open()
        except BaseException:
            self._close(drains=False)
            raise
        return self

    def _open(self) -> None:
        name = self.url.removeprefix("memory://")
        store = open_store(self.url)
        self._stack.callback(drop_memory, name)
        ticker = store.sync_link()
        self._stack.callback(ticker.close)
        loop = VirtualLoop(on_move=_make_clock(name, ticker))
        self._stack.callback(loop.finish)
        link = store.link()
        self._stack.callback(lambda: loop.run(link.aclose()))
        config = self._config
        look = Look(link, Keys(config.namespace), config.partitions or _PARTITIONS)
        client = Client(store, config=config)
        self._stack.callback(lambda: loop.run(client.aclose()))
        fleet = Fleet(loop, self._application, store, config, self._failures)
        self._running = _Running(loop=loop, fleet=fleet, client=client, look=look)
        for _ in range(self._workers):
            fleet.start()
        fleet.balance(look)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the workers drain (a message that never ends is cut off), and forget everything."""
        self._close(drains=not isinstance(error, HarnessError))

    def _close(self, *, drains: bool) -> None:
        running, self._running, self._is_over = self._running, None, True
        with self._stack:
            if running is not None and drains:
                running.fleet.drain()

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
        open_loop = self._open_running().loop
        events = self._open_running().client.request_stream(
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
        running = self._open_running()
        running.loop.settle()
        running.fleet.check()

    def advance(self, seconds: float) -> None:
        """Move the clock: timers, backoffs, leases, expiries and the TTLs of Redis' keys.

        Everything that becomes due on the way is done on the way, at its time.

        Raises:
            HarnessError: as `settle` does, and for negative seconds.
        """
        running = self._open_running()
        running.loop.advance(seconds)
        running.fleet.check()

    def run_until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Run, moving time as needed, and stop at the very step that makes a condition true.

        So a test can stop the application in the middle of a message, to `crash` a worker there.

        Args:
            condition: asked before each step of the event loop; must not change anything.
            within_s: seconds on the moved clock.

        Raises:
            HarnessError: it did not become true.
        """
        running = self._open_running()
        if not running.loop.run_until(condition, within_s):
            raise HarnessError(f"the condition did not become true within {within_s:g} s")
        running.fleet.check()

    def run(self, work: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine function with the harness's `wherry.Client`, and return its result.

        Time moves as needed: ``harness.run(lambda client: client.send_many(messages))``.
        """
        running = self._open_running()
        running.loop.check_free()
        running.fleet.check()
        return running.loop.run(work(running.client))

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
        running = self._open_running()
        running.loop.check_free()
        running.fleet.kill(worker)
        if restart:
            running.fleet.start()
        if wait:
            running.fleet.balance(running.look)

    def add_worker(self) -> None:
        """Start one more worker, and move the clock until all share the partitions."""
        running = self._open_running()
        running.loop.check_free()
        running.fleet.start()
        running.fleet.balance(running.look)

    def dead_letters(self, scope_id: str | None = None) -> list[DeadLetter]:
        """Settle, and return the dead letters of a scope, or of all, oldest first in each."""
        self.settle()
        look = self._open_running().look
        return self.run(lambda _: look.dead_letters(scope_id))

    def backlog(self) -> int:
        """Settle, and return the number of messages that are not finished."""
        self.settle()
        look = self._open_running().look
        return self.run(lambda _: look.backlog())

    def state(self, scope_id: str) -> dict[str, Any]:
        """Settle, and return the durable state of a scope as it was last committed, {} if none."""
        self.settle()
        look = self._open_running().look
        return self.run(lambda _: look.state(scope_id))

    @property
    def failures(self) -> list[Failure]:
        """Every error that the application has raised, oldest first, failed attempts included."""
        return list(self._failures.kept)

    @property
    def elapsed_s(self) -> float:
        """How far the clock has moved since the harness was made, in seconds."""
        return self._open_running().loop.time()

    def _open_running(self) -> _Running:
        if self._running is None:
            raise HarnessError(
                "this Harness is closed: its `with` block has ended; make another one"
                if self._is_over
                else "this Harness is not running: write `with Harness(application) as harness:` "
                "(in unittest: self.harness = self.enterContext(Harness(application)))"
            )
        return self._running


def _make_clock(name: str, ticker: SyncLink) -> Callable[[float], None]:
    """Tie a store to a clock; returns what must be told its time whenever it has moved."""
    # Whole milliseconds: how fractions are rounded must not depend on when a test was started.
    server, started_ms = memory_server(name), int(time.time()) * 1000
    unix_ms = started_ms
    server.unix_s = lambda: unix_ms / 1000

    def move(to_s: float) -> None:
        nonlocal unix_ms
        unix_ms = started_ms + round(to_s * 1000)
        ticker.call("SET", CLOCK_KEY, unix_ms)

    move(0.0)
    return move


def _make_config(settings: Mapping[str, Any]) -> Config:
    known = [setting.name for setting in fields(Config)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see wherry.Config"
            raise ConfigError(f"Harness: there is no setting {name!r}; {hint}")
    return Config(**{**settings, "partitions": settings.get("partitions") or _PARTITIONS})
