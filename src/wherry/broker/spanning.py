"""Spanning: scripts that look at one key of each of many partitions, on whatever store.

One server is asked in one command. In a cluster no command may name keys of two slots, and so each
partition is asked by itself, those of one node in one write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import StoreUnavailable
from .cluster import is_cluster
from .link import Link
from .scripts import Script, run_many

Part = Sequence[Any] | StoreUnavailable


async def run_over(link: Link, script: Script, names: Sequence[str], width: int) -> list[Part]:
    """Run a script that answers so many values for each key.

    Args:
        link: connection.
        script: takes keys, and no arguments.
        names: of the keys.
        width: values for each of them.

    Returns:
        The values of each key; or, in a cluster, that its node is away.

    Raises:
        WherryError: as `Link.call` does.
    """
    if not is_cluster(link):
        flat = await script.run(link, names, ())
        return [flat[at : at + width] for at in range(0, width * len(names), width)]
    calls = [(script, script.command((name,), ())) for name in names]
    parts: list[Part] = []
    for answer in await run_many(link, calls):
        if isinstance(answer, Exception) and not isinstance(answer, StoreUnavailable):
            raise answer
        parts.append(answer)
    return parts
