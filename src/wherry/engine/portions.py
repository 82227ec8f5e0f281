"""Portions: what one read has brought is handled a portion at a time.

The effects of a portion are on their way to Redis while the next is handled: the server, and who
waits for the answers, work beside the worker and not after it. Each portion costs a commit of its
own, which is little to pay for two dozen entries. Where there are many the next read is under way
already, and commits are full anyhow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

PORTION = 24
"""Entries, at least, of a portion."""
MANY = 128
"""So many entries are handled at once."""

T = TypeVar("T")


def portions_of(brought: Mapping[str, Sequence[T]], count: int) -> list[Mapping[str, Sequence[T]]]:
    """Portions of much the same size, in order; what one stream has brought stays together.

    Args:
        brought: entries by the name of their stream.
        count: how many they are together.
    """
    portions = count // PORTION if count < MANY else 1
    if portions < 2:
        return [brought]
    size = -(-count // portions)
    found: list[Mapping[str, Sequence[T]]] = []
    portion: dict[str, Sequence[T]] = {}
    left = size
    for name, entries in brought.items():
        portion[name] = entries
        left -= len(entries)
        if left <= 0:
            found.append(portion)
            portion, left = {}, size
    return [*found, portion] if portion else found
