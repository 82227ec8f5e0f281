"""``wherry config show``: each setting with its value and where that was found."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

import typer

from . import options as o
from .exits import reported
from .opening import read, warn_unknown
from .settings import PROCESS_SETTINGS, Settings, Value

commands = typer.Typer(help="Settings.", no_args_is_help=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One setting.

    Attributes:
        name: as `Config` and pyproject.toml spell it.
        value: None if it is unset; passwords are hidden.
        source: default, pyproject, environment or flag.
        place: the flag, the variable, or the key and its file; "" for a default.
    """

    name: str
    value: Value | None
    source: str
    place: str


@commands.callback()
def top() -> None:
    """Settings."""


@commands.command()
def show(
    *,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    partitions: o.Partitions = None,
    set_: o.Set = None,
) -> None:
    """Show each setting, its value and its source; Redis is not asked.

    Passwords are hidden.
    """
    with reported():
        settings = read({"url": url, "namespace": namespace, "partitions": partitions}, set_)
        warn_unknown(settings)
        shown = describe_settings(settings)
        print(_as_json(shown) if as_json else _as_table(shown))


def describe_settings(settings: Settings) -> list[Shown]:
    """All settings: those of the command line, then those of `Config`."""
    from ..broker.passwords import hide_password

    found: list[Shown] = []
    for name in [*PROCESS_SETTINGS, *(one.name for one in fields(settings.config))]:
        holder = settings if name in PROCESS_SETTINGS else settings.config
        value: Value | None = getattr(holder, name)
        if name == "url":
            value = hide_password(settings.url)
        place = settings.sources.get(name, "")
        value = None if value == "" and not place else value
        found.append(Shown(name=name, value=value, source=_source(place), place=place))
    return found


def _source(place: str) -> str:
    if not place:
        return "default"
    if place.startswith("--"):
        return "flag"
    return "environment" if place.startswith("WHERRY_") else "pyproject"


def _as_json(shown: list[Shown]) -> str:
    pairs = {
        one.name: {"value": one.value, "source": one.source, "place": one.place} for one in shown
    }
    return json.dumps(pairs, indent=2)


def _as_table(shown: list[Shown]) -> str:
    rows = [("SETTING", "VALUE", "SOURCE")]
    rows += [(one.name, _text(one.value), one.place or one.source) for one in shown]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{first}}  {value:<{second}}  {place}" for name, value, place in rows)


def _text(value: Value | None) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.15g}" if isinstance(value, float) else str(value)
