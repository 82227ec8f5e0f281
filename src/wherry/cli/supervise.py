"""``wherry run --workers N``: one supervisor, from its banner to its exit code.

The supervisor does not load the application: what its workers say of it is heard from them.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path

from ..broker.connect import open_store
from ..engine.supervision import Supervision
from ..errors import ConfigError
from ..hooks import Hooks
from ..supervisor.changes import changes_in
from ..supervisor.child import Launcher, this_command
from ..supervisor.supervisor import Front, Supervisor
from .exits import ExitCode, complain
from .logs import configure_logs
from .serve import announce, check_application, choose_loop, warn_unknown
from .settings import Settings, choose_store

_LONGEST_DIRECTORY = 80
"""A unix socket's path may have some 100 bytes."""


def supervise(settings: Settings, *, on_terminal: bool) -> ExitCode:
    """Run workers until all have drained.

    Args:
        settings: of the command; each worker reads them anew.
        on_terminal: a person reads stderr: plain lines instead of JSON.

    Returns:
        DRAINED, or the worst code of a worker at the end; STARTUP_FAILED or the worker's own
        code when none could be started.

    Raises:
        ConfigError: what no worker could use.
        StoreNotFound: no program for the embedded store.
    """
    configure_logs(settings.log_level, json_lines=not on_terminal)
    hooks = Hooks()
    warn_unknown(settings.unknown, hooks)
    url = _check(settings)
    changes = changes_in(Path(settings.app_dir)) if settings.reload else None
    # Kept open: an embedded store shall not end with one of its workers.
    store = open_store(url, server_binary=settings.embedded_binary)
    supervision = Supervision(
        settings.workers,
        drain_timeout_s=settings.config.drain_timeout_s,
        draw=random.random,
        awaits_changes=settings.reload,
    )
    try:
        facts = {"workers": str(settings.workers), "pid": str(os.getpid())}
        announce(settings, store, hooks, facts, on_terminal=on_terminal)
        with tempfile.TemporaryDirectory(prefix="wherry-", dir=_short_directory()) as directory:
            launcher = Launcher(
                this_command(sys.executable, sys.orig_argv), os.environ, Path(directory)
            )
            supervisor = Supervisor(
                supervision, launcher, hooks, front=make_front(settings), changes=changes
            )
            code = asyncio.run(supervisor.run())
    finally:
        store.close()
    if supervision.failure:
        complain(supervision.failure)
    return ExitCode(code) if code in set(ExitCode) else ExitCode.CRASHED


def _check(settings: Settings) -> str:
    """Refuse what no worker could use; returns the store's URL."""
    if sys.platform == "win32":
        raise ConfigError("--workers and --reload need signals and process groups: not on Windows")
    check_application(settings)
    choose_loop(settings.loop)
    url = choose_store(settings, own_process=True)
    if url.startswith("memory://") and settings.workers > 1:
        raise ConfigError(
            f"workers is {settings.workers}, but a memory:// store lives inside one process; leave "
            "the URL unset to share the embedded store, or set WHERRY_URL=redis://..."
        )
    return url


def make_front(_settings: Settings) -> Front | None:
    """What speaks for all workers on one port, if there is anything that does."""
    return None


def _short_directory() -> str | None:
    """Where temporary directories are made, unless sockets could not be made there."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_DIRECTORY else "/tmp"
