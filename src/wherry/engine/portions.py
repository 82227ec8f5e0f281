"""Portions: what one read has brought is handled a portion at a time.

The effects of a portion are on their way to Redis while the next is handled: the server, and who
waits for the answers, work beside the worker and not after it. Each portion costs a commit of its
own, which is little to pay for two dozen entries. Where there are many the next read is under way
already, and commits are full anyhow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

PORTION = 24
"""Entries of a portion, about: twice as many make two."""
LEAST = PORTION // 2
"""So few that one read brings are handled like what comes by itself."""
MANY = 128
"""So many entries are handled at once."""

T = TypeVar("T")


class Portions:
    """Remembers from one read to the next of a worker.

    Attributes:
        are_under_way: there were several lately, and while one of them is handled those who wait
            for the answers to another send what the next read brings.
    """

    __slots__ = ("are_under_way",)

    def __init__(self) -> None:
        """Begin without."""
        self.are_under_way = False

    def part(
        self, brought: Mapping[str, Sequence[T]], count: int, is_whole: Callable[[], bool]
    ) -> list[Mapping[str, Sequence[T]]]:
        """Portions of much the same size, in order; what one stream has brought stays together.

        Args:
            brought: entries by the name of their stream.
            count: how many they are together.
            is_whole: tells whether they must be handled at once; asked if they need not.
        """
        portions = count // PORTION
        if portions < 2 or count >= MANY or is_whole():
            self.are_under_way = self.are_under_way and LEAST <= count < MANY
            return [brought]
        self.are_under_way = True
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
