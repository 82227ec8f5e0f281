"""``wherry run``: one worker, from its banner to its exit code.

The order is the order of a process's life: application, store, worker, signals, drain.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..broker.connect import Store, open_store
from ..errors import ConfigError
from ..hooks import Hooks
from ..runtime.vitals import Vitals
from ..supervisor.limits import Limits, wait_until_reached
from ..supervisor.parent import Parent
from ..worker import Worker
from .exits import ExitCode
from .loading import load_application
from .logs import configure_logs, mark_where_traced
from .monitored import monitored
from .ranges import parse_bytes
from .settings import Settings, UnknownVariable, choose_store
from .signals import Signals
from .version import installed_version

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_COLLECT_AT = (50_000, 20, 20)
"""Instances leave no cycles behind, and messages on their way are thousands of young objects that
nobody's cycle holds: with Python's own threshold they are gone through again and again, a tenth of
the time that a message takes. An application that sets one of its own keeps it."""
_ORPHAN_MARGIN_S = 10.0
"""Beyond the drain deadline, for a worker whose supervisor is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """What surrounds the worker in this process."""

    hooks: Hooks
    signals: Signals
    limits: Limits
    parent: Parent | None


def serve(settings: Settings, *, on_terminal: bool, parent: Parent | None = None) -> ExitCode:
    """Run a worker until it has drained.

    Args:
        settings: of the command.
        on_terminal: a person reads stderr: plain lines instead of JSON.
        parent: the supervisor, if this process has one.

    Returns:
        DRAINED or DRAIN_DEADLINE_PASSED; everything else is raised.

    Raises:
        WherryError: as `load_application`, `open_store` and `Worker.arun` say.
    """
    configure_logs(settings.log_level, json_lines=not on_terminal)
    hooks = Hooks()
    signals = Signals(hooks)
    limits = _limits_of(settings)
    process = _Process(hooks=hooks, signals=signals, limits=limits, parent=parent)
    if parent is None:
        warn_unknown(settings.unknown, hooks)
    url = choose_store(settings, own_process=True)
    check_application(settings)
    loop_factory = choose_loop(settings.loop)
    gc.set_threshold(*_COLLECT_AT)
    with signals.starting():
        if parent is not None:
            limit_s = settings.config.drain_timeout_s + _ORPHAN_MARGIN_S
            parent.watch(lambda: signals.orphaned(limit_s))
        application = load_application(
            settings.app, app_dir=settings.app_dir, factory=settings.factory
        )
        # Again: logging.config in the application's module may have switched our logger off.
        configure_logs(settings.log_level, json_lines=not on_terminal)
        mark_where_traced()
        store = open_store(url, server_binary=settings.embedded_binary)
        try:
            worker = Worker(application, store, settings.config, hooks=hooks)
            facts = {"worker": worker.worker_id}
            announce(settings, store, hooks, facts, on_terminal=on_terminal and parent is None)
            gc.collect()
            gc.freeze()  # what was loaded at the start stays, and need not be looked at
            listening = monitored(worker, store, settings, hooks, parent)
            with listening as vitals, asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(_run(worker, process, vitals))
        finally:
            store.close()
    # The process ends: what lives goes with it, and need not be searched for cycles.
    gc.freeze()
    return ExitCode.DRAINED if worker.has_drained else ExitCode.DRAIN_DEADLINE_PASSED


def _limits_of(settings: Settings) -> Limits:
    memory_bytes = parse_bytes(settings.max_memory)
    return Limits(messages=settings.max_messages, memory_bytes=memory_bytes).spread(random.random)


def check_application(settings: Settings) -> None:
    """Refuse to run nothing.

    Raises:
        ConfigError: no application is set.
    """
    if not settings.app:
        raise ConfigError(
            "no application: wherry run MODULE:ATTRIBUTE, or set app in [tool.wherry]"
        )


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


def warn_unknown(variables: tuple[UnknownVariable, ...], hooks: Hooks) -> None:
    """Warn of environment variables that look like settings and are none."""
    for one in variables:
        hint = {"nearest": one.nearest} if one.nearest else {}
        hooks.warn("unknown environment variable ignored", variable=one.name, **hint)


async def _run(worker: Worker, process: _Process, vitals: Vitals | None) -> None:
    with process.signals.serving(worker):
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(_say_ready(worker, process), name="ready:cli"),
                    group.create_task(_keep_limits(worker, process), name="limits:cli"),
                ]
                if vitals is not None:
                    beside.append(group.create_task(vitals.pulse(), name="pulse:cli"))
                try:
                    await worker.arun()
                finally:
                    for task in beside:
                        task.cancel()
        except* Exception as failed:
            alone, *others = failed.exceptions
            if others:
                raise
        else:
            return
    raise alone  # out of the group that only the tasks beside it need


async def _say_ready(worker: Worker, process: _Process) -> None:
    await worker.ready()
    mark_where_traced()  # the application may have chosen its tracer, and its logging, meanwhile
    process.hooks.life("ready", worker=worker.worker_id)
    if process.parent is not None:
        process.parent.say_ready(worker.worker_id)


async def _keep_limits(worker: Worker, process: _Process) -> None:
    if not process.limits.are_any:
        return
    tallies = worker.tallies
    reason = await wait_until_reached(
        process.limits, lambda: tallies.done + tallies.dead + tallies.expired
    )
    if process.parent is not None:
        process.parent.ask_for_replacement(reason)
    elif process.signals.drain():
        process.hooks.life("a limit is reached: this worker drains and ends", reason=reason)


def announce(
    settings: Settings,
    store: Store,
    hooks: Hooks,
    more: Mapping[str, str],
    *,
    on_terminal: bool,
) -> None:
    """Say what is started on which store: a banner on a terminal, else an event."""
    config = settings.config
    facts: dict[str, str] = {
        "app": settings.app,
        "namespace": config.namespace,
        "partitions": str(config.partitions or "as the namespace has, 64 if it is new"),
        **more,
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
