"""Monitored: a worker whose process answers probes and scrapers while it runs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator

from ..broker.connect import Store
from ..hooks import Hooks
from ..monitoring.fleet import Front
from ..monitoring.server import Server, listen, listen_unix
from ..monitoring.site import WorkerSite, has_metrics
from ..runtime.vitals import Vitals
from ..supervisor.parent import Parent
from ..worker import Worker
from .settings import Settings


@contextlib.contextmanager
def monitored(
    worker: Worker,
    store: Store,
    settings: Settings,
    hooks: Hooks,
    parent: Parent | None,
) -> Generator[Vitals | None]:
    """Answer until the end of the block, if ``http_port`` is set.

    Args:
        worker: that has not begun yet.
        store: where its data is.
        settings: of the command.
        hooks: where to report.
        parent: the supervisor, which has the port; it asks over a socket.

    Yields:
        Whose `Vitals.pulse` must run in the worker's loop; None: nobody listens.

    Raises:
        ConfigError: the port cannot be had.
    """
    if settings.http_port is None:
        yield None
        return
    listening = _listen(settings, hooks) if parent is None else listen_unix(parent.probes_socket)
    vitals = worker.vitals = Vitals(worker.worker_id, settings.config)
    site = WorkerSite(vitals, store, is_for_supervisor=parent is not None)
    server = Server(listening, site, hooks)
    server.start()
    try:
        if parent is None:
            hooks.life("probes and metrics are served", address=server.address)
        yield vitals
    finally:
        server.stop()


def make_front(settings: Settings, hooks: Hooks) -> Front | None:
    """What speaks for all workers of a supervisor; None where nobody is to.

    Raises:
        ConfigError: the port cannot be had.
    """
    return None if settings.http_port is None else Front(_listen(settings, hooks), hooks)


def _listen(settings: Settings, hooks: Hooks) -> socket.socket:
    assert settings.http_port is not None
    if not has_metrics():
        hooks.warn("/metrics needs prometheus-client: pip install 'wherry[metrics]'")
    return listen(settings.http_host, settings.http_port)
