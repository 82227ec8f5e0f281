"""The fleet on the command line: who works, on what, and what waits."""

from __future__ import annotations

import typer

from . import options as o
from .exits import reported
from .opening import opened, read

commands = typer.Typer()


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
