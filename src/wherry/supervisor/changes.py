"""Changes: which files of an application have changed, as they do."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

from ..errors import ConfigError

_Watch = Callable[..., AsyncIterator[set[tuple[object, str]]]]

SETTLE_MS = 300
"""Files that change within so long are one change: an editor or a checkout writes several."""


def changes_in(directory: Path) -> AsyncIterator[Sequence[str]]:
    """The Python files below a directory that have changed, whenever some have.

    Folders of tools (``.venv``, ``.git``, ``__pycache__``, ``node_modules``, ...) are left out.

    Raises:
        ConfigError: the package that watches files is not installed.
    """
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(
            "--reload needs a package that watches files; pip install 'wherry[reload]'"
        )
    return _watch(directory)


async def _watch(directory: Path) -> AsyncIterator[Sequence[str]]:
    import watchfiles

    # Its optional argument `stop_event` has a type of trio's, which is not installed.
    watch = cast("_Watch", watchfiles.awatch)  # pyright: ignore[reportUnknownMemberType]
    async for found in watch(directory, watch_filter=watchfiles.PythonFilter(), debounce=SETTLE_MS):
        yield sorted({path for _, path in found})
