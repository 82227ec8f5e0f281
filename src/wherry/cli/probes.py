"""``wherry health`` as the command line proper has it: its help, and its mistakes."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options as o
from .exits import ExitCode, reported
from .health import WITHIN_S, HealthOptions, check_health

_Worker = Annotated[
    str | None, typer.Option("--worker", metavar="ID", help="This one; its log says its name.")
]
_Any = Annotated[bool, typer.Option("--any", help="Any worker of the namespace, on any host.")]
_Within = Annotated[float, typer.Option("--timeout", help="Seconds for all of it.", min=0.001)]


def health(
    *,
    worker: _Worker = None,
    any_: _Any = False,
    timeout: _Within = WITHIN_S,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Ask whether a worker of this host can work.

    Exit code 0 if Redis says that it is a live member, able to claim and to read; otherwise 1.
    For exec probes: it takes a tenth of a second, and does not load the application.
    """
    options: HealthOptions = {
        "any": any_,
        "json": as_json,
        "timeout": timeout,
        "set": set_ or [],
    }
    for name, value in (("worker", worker), ("url", url), ("namespace", namespace)):
        if value is not None:
            options[name] = value
    with reported():
        raise typer.Exit(ExitCode.DRAINED if check_health(options) else ExitCode.CRASHED)
