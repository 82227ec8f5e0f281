"""Owners: who holds the lease of each partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..errors import StoreUnavailable
from ..model import Partition
from .link import Link
from .scripts import Script
from .spanning import run_over
from .wire import Keys

Owner = tuple[str, int]
"""Worker id ("" if released) and milliseconds left."""


async def find_owners(
    link: Link, survey: Script, keys: Keys, partitions: Sequence[Partition]
) -> list[Owner | StoreUnavailable | None]:
    """Owner of each partition.

    None where the key was overwritten by something that is no lease: nobody can claim it; an error
    where the node of a cluster is away.
    """
    names = [keys.lease(partition) for partition in partitions]
    owners: list[Owner | StoreUnavailable | None] = []
    for part in await run_over(link, survey, names, 2):
        if isinstance(part, StoreUnavailable):
            owners.append(part)
        else:
            owner, left_ms = cast("tuple[bytes | None, int]", part)
            owners.append(None if owner is None else (owner.decode(), left_ms))
    return owners


async def read_owners(
    link: Link, survey: Script, keys: Keys, partitions: Sequence[Partition]
) -> list[Owner | None]:
    """The same; raises if a node is away."""
    owners: list[Owner | None] = []
    for owner in await find_owners(link, survey, keys, partitions):
        if isinstance(owner, StoreUnavailable):
            raise owner
        owners.append(owner)
    return owners
