"""``wherry run``: one worker, from its banner to its exit code.

The order is the order of a process's life: application, store, worker, signals, drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import signal
import sys
from collections.abc import Callable, Generator
from types import FrameType

from ..broker.connect import Store, open_store
from ..errors import ConfigError
from ..hooks import Hooks
from ..worker import Worker
from .exits import ExitCode
from .loading import load_application
from .logs import configure_logs
from .settings import Settings, UnknownVariable, choose_store
from .version import installed_version

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Instances leave no cycles behind: frequent collections only walk over those that live.
_COLLECT_AT = (20_000, 20, 20)
_PYTHONS_GC_THRESHOLD = 700
_GC_THRESHOLD = 50_000
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings, *, on_terminal: bool) -> ExitCode:
    """Run a worker until it has drained.

    Args:
        settings: of the command.
        on_terminal: a person reads stderr: plain lines instead of JSON.

    Returns:
        DRAINED or DRAIN_DEADLINE_PASSED; everything else is raised.

    Raises:
        WherryError: as `load_application`, `open_store` and `Worker.arun` say.
    """
    configure_logs(settings.log_level, json_lines=not on_terminal)
    hooks = Hooks()
    warn_unknown(settings.unknown, hooks)
    url = choose_store(settings, own_process=True)
    if not settings.app:
        raise ConfigError(
            "no application: wherry run MODULE:ATTRIBUTE, or set app in [tool.wherry]"
        )
    loop_factory = choose_loop(settings.loop)
    gc.set_threshold(*_COLLECT_AT)
    with _stopping_early():
        application = load_application(
            settings.app, app_dir=settings.app_dir, factory=settings.factory
        )
        # Again: logging.config in the application's module may have switched our logger off.
        configure_logs(settings.log_level, json_lines=not on_terminal)
        store = open_store(url, server_binary=settings.embedded_binary)
        try:
            worker = Worker(application, store, settings.config, hooks=hooks)
            _announce(settings, store, worker, hooks, on_terminal=on_terminal)
            tune_garbage_collection()
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(_run(worker, hooks))
        finally:
            store.close()
    # The process ends: what lives goes with it, and need not be searched for cycles.
    gc.freeze()
    return ExitCode.DRAINED if worker.has_drained else ExitCode.DRAIN_DEADLINE_PASSED


def choose_loop(name: str) -> LoopFactory | None:
    """The factory of the event loop, None for asyncio's own.

    Args:
        name: auto (uvloop where it is installed and known to work), asyncio or uvloop.

    Raises:
        ConfigError: uvloop is asked for and not installed.
    """
    has_uvloop = sys.platform != "win32" and importlib.util.find_spec("uvloop") is not None
    if name == "asyncio" or (name == "auto" and not has_uvloop):
        return None
    if not has_uvloop:
        raise ConfigError(
            "loop uvloop: uvloop is not installed; pip install 'wherry[uvloop]', "
            "or leave --loop at auto"
        )
    import uvloop

    return uvloop.new_event_loop


def tune_garbage_collection() -> None:
    """Let the collector look more seldom, and not at what was loaded at the start.

    Messages on their way are thousands of young objects that nobody's cycle holds: with Python's
    own threshold they are gone through again and again, a tenth of the time that a message takes.
    An application that has set a threshold of its own keeps it.
    """
    if gc.get_threshold()[0] == _PYTHONS_GC_THRESHOLD:
        gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])
    gc.collect()
    gc.freeze()


def warn_unknown(variables: tuple[UnknownVariable, ...], hooks: Hooks) -> None:
    """Warn of environment variables that look like settings and are none."""
    for one in variables:
        hint = {"nearest": one.nearest} if one.nearest else {}
        hooks.warn("unknown environment variable ignored", variable=one.name, **hint)


async def _run(worker: Worker, hooks: Hooks) -> None:
    with _stopping(worker, hooks):
        try:
            async with asyncio.TaskGroup() as group:
                ready = group.create_task(_say_ready(worker, hooks), name="ready:cli")
                try:
                    await worker.arun()
                finally:
                    ready.cancel()
        except* Exception as failed:
            alone, *others = failed.exceptions
            if others:
                raise
        else:
            return
    raise alone  # out of the group that only the line above "ready" needs


async def _say_ready(worker: Worker, hooks: Hooks) -> None:
    await worker.ready()
    hooks.life("ready", worker=worker.worker_id)


@contextlib.contextmanager
def _stopping(worker: Worker, hooks: Hooks) -> Generator[None]:
    """Signals ask the worker to stop: the first drains, the second hands back, a third kills.

    Plain handlers, not the loop's: they run between two instructions of an application that
    keeps the loop busy, so that the third signal is heard even then.
    """
    loop = asyncio.get_running_loop()
    heard = 0

    def stop(number: int) -> None:
        is_first = heard <= 1
        effect = (
            "drains; a second one hands back at once" if is_first else "hands back; a third kills"
        )
        hooks.life("signal received", signal=signal.Signals(number).name, effect=effect)
        worker.request_stop()

    def hear(number: int, _: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        if heard >= 2:
            for one in _STOP_SIGNALS:
                signal.signal(one, signal.SIG_DFL)
        loop.call_soon_threadsafe(stop, number)

    with _handlers(hear):
        yield


@contextlib.contextmanager
def _stopping_early() -> Generator[None]:
    """Before the worker runs there is nothing to drain: both signals just end the process.

    SIGTERM needs a handler even so: the first process of a container ignores what has none.
    """

    def hear(_number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handlers(hear):
        yield


@contextlib.contextmanager
def _handlers(hear: Callable[[int, FrameType | None], None]) -> Generator[None]:
    before = {one: signal.signal(one, hear) for one in _STOP_SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _announce(
    settings: Settings, store: Store, worker: Worker, hooks: Hooks, *, on_terminal: bool
) -> None:
    config = settings.config
    facts: dict[str, str] = {
        "app": settings.app,
        "namespace": config.namespace,
        "partitions": str(config.partitions or "as the namespace has, 64 if it is new"),
        "worker": worker.worker_id,
        "store": describe_store(store),
    }
    if on_terminal:
        lines = [f"wherry {installed_version()}"]
        lines += [f"  {name:<11} {fact}" for name, fact in facts.items()]
        print("\n".join(lines), file=sys.stderr, flush=True)
    else:
        hooks.life("starting", version=installed_version(), **facts)
    if store.is_memory:
        hooks.warn(
            "memory store: no other process can send to this worker, and all is lost at its end"
        )


def describe_store(store: Store) -> str:
    """The store as the banner shows it, without its password."""
    scheme, _, rest = store.where.partition("://")
    if scheme == "embedded":
        return f"embedded store, this machine only: {rest}"
    return store.where
