"""What every command beside the worker begins with: its settings, and its store."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import ConfigError
from .exits import ExitCode, complain
from .settings import Settings, Value, choose_store, read_settings

if TYPE_CHECKING:
    from ..broker.connect import Store


def read(flags: Mapping[str, Value | None], assignments: Sequence[str] | None) -> Settings:
    """The settings of a command: flag > variable > pyproject.toml > default.

    Raises:
        ConfigError: as `read_settings` says.
    """
    return read_settings(
        flags, assignments or (), environ=os.environ, directory=Path.cwd().absolute()
    )


def warn_unknown(settings: Settings) -> None:
    """Say which variables of the environment look like settings and are none."""
    for one in settings.unknown:
        hint = f"; did you mean {one.nearest}?" if one.nearest else ""
        complain(f"warning: {one.name} is not a setting and is ignored{hint}")


def confirm(question: str) -> None:
    """Ask on the terminal before something is deleted.

    Raises:
        ConfigError: nobody can answer.
        typer.Exit: the answer is not yes; the exit code is 1.
    """
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can answer here; give --yes, or --dry-run to look")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        complain("nothing was done")
        raise typer.Exit(ExitCode.CRASHED)


@contextlib.contextmanager
def opened(settings: Settings) -> Generator[Store]:
    """The store that a command beside the worker looks at.

    Raises:
        WherryError: as `choose_store` and `open_store` say.
    """
    warn_unknown(settings)
    url = choose_store(settings, own_process=False)
    from ..broker.connect import open_store
    from .logs import configure_logs

    configure_logs(settings.log_level, json_lines=False)
    store = open_store(url, server_binary=settings.embedded_binary)
    try:
        yield store
    finally:
        store.close()
