"""Scopes on the command line: who is slow, who is full, and all there is of one."""

from __future__ import annotations

import typer

from . import options as o
from .exits import reported
from .opening import opened, read

commands = typer.Typer(
    help="List scopes in hand, or show one.", no_args_is_help=True, rich_markup_mode=None
)


@commands.command("ls")
def ls(
    *,
    by: o.By = "age",
    count: o.Count = 50,
    timeout: o.AnswerTimeout = 2.0,
    as_json: o.AsJson = False,
    watch: o.Watch = False,
    every: o.Every = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show the slowest, fullest or most often tried scopes that workers have in hand."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        from . import lookup, tables

        showing = tables.Showing(as_json=as_json, watch=watch, every_s=every)
        order = lookup.choose_order(by)
        with opened(settings) as store:
            look = lookup.listing(store, settings.config.namespace, order, count, timeout)
            tables.show(store, look, lookup.list_text, lookup.list_data, showing)


@commands.command("show")
def show(
    scope: o.OneScope,
    *,
    timeout: o.AnswerTimeout = 2.0,
    as_json: o.AsJson = False,
    watch: o.Watch = False,
    every: o.Every = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show a scope: owner, instance, what waits, last error, replies and state."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        from . import lookup, tables

        showing = tables.Showing(as_json=as_json, watch=watch, every_s=every)
        with opened(settings) as store:
            look = lookup.showing(store, settings.config.namespace, scope, timeout)
            tables.show(store, look, lookup.one_text, lookup.one_data, showing)
