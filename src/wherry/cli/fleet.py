"""The fleet on the command line: who works, on what, what waits; drain, stop, pause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from . import options as o
from .exits import reported
from .opening import opened, read

if TYPE_CHECKING:
    from ..broker.control import Deed

commands = typer.Typer()
workers = typer.Typer(help="List workers, or end one.", no_args_is_help=True, rich_markup_mode=None)
commands.add_typer(workers, name="workers")


@commands.command()
def status(
    *,
    as_json: o.AsJson = False,
    watch: o.Watch = False,
    every: o.Every = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show workers, partitions, what waits and what died."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        from . import show, tables

        showing = tables.Showing(as_json=as_json, watch=watch, every_s=every)
        with opened(settings) as store:
            look = show.looking(store, settings.config.namespace)
            tables.show(store, look, show.as_table, show.as_data, showing)


@commands.command()
def partitions(
    *,
    as_json: o.AsJson = False,
    watch: o.Watch = False,
    every: o.Every = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show owner, backlog and oldest message of each partition."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        from . import show, tables

        showing = tables.Showing(as_json=as_json, watch=watch, every_s=every)
        with opened(settings) as store:
            look = show.looking(store, settings.config.namespace)
            tables.show(store, look, show.partitions_table, show.partitions_data, showing)


@commands.command()
def top(
    *,
    once: o.Once = False,
    every: o.EveryLook = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show the fleet live: rates, latencies, backlog, slow and full scopes; q quits."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        from . import live

        live.check_terminal(once=once)
        with opened(settings) as store:
            if once:
                live.show_once(store, settings.config.namespace)
            else:
                live.run(store, settings.config.namespace, every)


@workers.command("ls")
def ls(
    *,
    as_json: o.AsJson = False,
    watch: o.Watch = False,
    every: o.Every = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show what each worker says of itself."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        from . import show, tables
        from . import workers as told

        showing = tables.Showing(as_json=as_json, watch=watch, every_s=every)
        with opened(settings) as store:
            look = show.looking(store, settings.config.namespace)
            tables.show(store, look, told.as_table, told.as_data, showing)


@workers.command()
def drain(
    worker: o.WorkerId,
    *,
    wait: o.Wait = 60.0,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Let a worker finish what runs, hand its partitions on, and end, as SIGTERM does."""
    with reported():
        from ..broker.control import Deed

        _end(worker, Deed.DRAIN, wait, as_json, {"url": url, "namespace": namespace}, set_)


@workers.command()
def stop(
    worker: o.WorkerId,
    *,
    wait: o.Wait = 60.0,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Let a worker hand everything back at once and end: what runs is begun anew by others."""
    with reported():
        from ..broker.control import Deed

        _end(worker, Deed.STOP, wait, as_json, {"url": url, "namespace": namespace}, set_)


@commands.command()
def pause(
    *,
    until_idle: o.UntilIdle = False,
    timeout: o.WorkersTimeout = 30.0,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Let all workers of the namespace begin nothing until it is resumed."""
    with reported():
        flags: dict[str, str | None] = {"url": url, "namespace": namespace}
        _pause(flags, set_, as_json, paused=True, within_s=timeout, until_idle=until_idle)


@commands.command()
def resume(
    *,
    timeout: o.WorkersTimeout = 30.0,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Let the workers of a paused namespace go on."""
    with reported():
        flags: dict[str, str | None] = {"url": url, "namespace": namespace}
        _pause(flags, set_, as_json, paused=False, within_s=timeout)


def _end(
    worker: str,
    deed: Deed,
    wait_s: float,
    as_json: bool,
    flags: dict[str, str | None],
    assignments: list[str] | None,
) -> None:
    settings = read(flags, assignments)
    from . import tables
    from . import workers as told

    with opened(settings) as store:
        ended = asyncio.run(told.end(store, settings.config.namespace, worker, deed, wait_s))
        print(tables.to_json(told.end_data(ended)) if as_json else told.end_text(ended))


def _pause(
    flags: dict[str, str | None],
    assignments: list[str] | None,
    as_json: bool,
    *,
    paused: bool,
    within_s: float,
    until_idle: bool = False,
) -> None:
    settings = read(flags, assignments)
    from . import pausing, tables

    with opened(settings) as store:
        found = asyncio.run(
            pausing.pause(
                store,
                settings.config.namespace,
                paused=paused,
                within_s=within_s,
                until_idle=until_idle,
            )
        )
        print(tables.to_json(pausing.as_data(found)) if as_json else pausing.as_text(found))
