"""``wherry health``: one question, one line, for probes that start a process every few seconds.

It loads neither the application nor typer, redis-py or an event loop: importing these takes longer
than everything it does. Options that it does not know are left to the command line proper, which
also has its help.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

from ..broker.liveness import Calls, Liveness, ask_host, ask_worker
from ..broker.plain import KINDS, PlainConnection
from ..broker.urls import parse_url
from ..broker.wire import Keys
from ..errors import StoreError, StoreRefused, StoreUnavailable
from .settings import Settings, choose_store, read_settings

WITHIN_S = 1.0
"""For the whole question: the time that Kubernetes gives a probe unless told otherwise."""


class HealthOptions(TypedDict, total=False):
    """Options of the command; the keys are those of its flags."""

    worker: str
    any: bool
    json: bool
    timeout: float
    url: str
    namespace: str
    set: list[str]


def read_options(arguments: Sequence[str]) -> HealthOptions | None:
    """The options of a well-formed command line; None if typer shall look at it."""
    found: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        name, separator, value = rest.pop(0).partition("=")
        if name in ("--any", "--json") and not separator:
            found[name[2:]] = True
        elif name in ("--worker", "--timeout", "--url", "--namespace", "--set"):
            if not separator:
                if not rest:
                    return None
                value = rest.pop(0)
            if name == "--set":
                cast("list[str]", found.setdefault("set", [])).append(value)
            else:
                found[name[2:]] = value
        else:
            return None
    if "timeout" in found:
        try:
            found["timeout"] = within_s = float(str(found["timeout"]))
        except ValueError:
            return None
        if not within_s > 0:
            return None
    return cast("HealthOptions", found)


def check_health(options: HealthOptions) -> bool:
    """Ask, print the line, and return whether all is well.

    Raises:
        ConfigError: wrong settings; everything else that is wrong is a line.
    """
    flags = {"url": options.get("url"), "namespace": options.get("namespace")}
    settings = read_settings(
        flags, options.get("set", ()), environ=os.environ, directory=Path.cwd().absolute()
    )
    url = choose_store(settings, own_process=False)
    try:
        found = _ask(url, settings, options)
    except (StoreUnavailable, StoreRefused, StoreError) as error:
        return _say([], str(error), options)
    well = [one for one in found if not one.problem]
    if well:
        return _say(well, "", options)
    return _say(found, _explain(found, settings.config.namespace, options), options)


def _ask(url: str, settings: Settings, options: HealthOptions) -> list[Liveness]:
    keys = Keys(settings.config.namespace)
    within_s = options.get("timeout", WITHIN_S)

    def ask(calls: Calls) -> list[Liveness]:
        if worker := options.get("worker"):
            return [ask_worker(calls, keys, worker)]
        return ask_host(calls, keys, None if options.get("any") else socket.gethostname())

    address = parse_url(url)
    if address.kind in KINDS:
        with PlainConnection(address, within_s=within_s) as plain:
            return ask(plain.calls)
    from ..broker.connect import open_store  # slower, but it knows every kind of store

    link = open_store(url).sync_link(answer_timeout_s=within_s)
    try:
        return ask(link.calls)
    finally:
        link.close()


def _explain(found: list[Liveness], namespace: str, options: HealthOptions) -> str:
    if not found:
        where = "" if options.get("any") else f" of host {socket.gethostname()}"
        return f"no worker{where} is a member of namespace {namespace}"
    more = f" (and {len(found) - 1} others)" if len(found) > 1 else ""
    return f"worker {found[0].worker_id}: {found[0].problem}{more}"


def _say(found: list[Liveness], problem: str, options: HealthOptions) -> bool:
    if options.get("json"):
        workers = [
            {
                "worker": one.worker_id,
                "host": one.host,
                "beat_ms": one.beat_ms,
                "partitions": one.partitions,
                "problem": one.problem,
            }
            for one in found
        ]
        print(json.dumps({"healthy": not problem, "problem": problem, "workers": workers}))
    elif problem:
        print(f"unhealthy: {problem}")
    else:
        first = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        print(
            f"ok: worker {first.worker_id} can claim and read, beat {first.beat_ms / 1000:.1f} s "
            f"ago, holds {first.partitions} partitions{more}"
        )
    return not problem
