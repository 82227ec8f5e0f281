"""What every command beside the worker begins with: its settings, and its store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .exits import complain
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


@contextlib.contextmanager
def opened(settings: Settings) -> Generator[Store]:
    """The store that a command beside the worker looks at.

    Raises:
        WherryError: as `choose_store` and `open_store` say.
    """
    for one in settings.unknown:
        hint = f"; did you mean {one.nearest}?" if one.nearest else ""
        complain(f"warning: {one.name} is not a setting and is ignored{hint}")
    url = choose_store(settings, own_process=False)
    from ..broker.connect import open_store
    from .logs import configure_logs

    configure_logs(settings.log_level, json_lines=False)
    store = open_store(url, server_binary=settings.embedded_binary)
    try:
        yield store
    finally:
        store.close()
