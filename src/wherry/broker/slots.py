"""Slots: to which of a cluster's slots a key belongs, and which node serves each of them.

See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
"""

from __future__ import annotations

import binascii
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SLOTS = 16_384

Place = tuple[str, int]
"""Host and port of a node."""


def slot_of(key: str | bytes) -> int:
    """The slot of a key: of its hash tag if it has one."""
    data = key.encode() if isinstance(key, str) else key
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Shard:
    """Slots that one primary serves.

    Attributes:
        first: the first of them.
        last: the last of them.
        primary: who serves them.
        replicas: who would take over.
    """

    first: int
    last: int
    primary: Place
    replicas: tuple[Place, ...] = ()


class SlotMap:
    """Who serves which slot, as one node has told it; never changed.

    Attributes:
        shards: ranges of slots, in order.
    """

    __slots__ = ("_starts", "shards")

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        """Keep these ranges."""
        self.shards = tuple(sorted(shards, key=lambda one: one.first))
        self._starts = [one.first for one in self.shards]

    def __eq__(self, other: object) -> bool:
        """Whether both say the same."""
        return isinstance(other, SlotMap) and other.shards == self.shards

    __hash__ = None  # type: ignore[assignment]  # compared by what it says

    def place_of(self, slot: int) -> Place | None:
        """Who serves a slot, None if nobody does."""
        at = bisect_right(self._starts, slot) - 1
        if at < 0 or slot > self.shards[at].last:
            return None
        return self.shards[at].primary

    @property
    def primaries(self) -> tuple[Place, ...]:
        """All who serve any slots, in order of these."""
        return tuple(dict.fromkeys(one.primary for one in self.shards))

    @property
    def places(self) -> tuple[Place, ...]:
        """All nodes, the primaries first."""
        replicas = (place for one in self.shards for place in one.replicas)
        return tuple(dict.fromkeys((*self.primaries, *replicas)))


def read_slots(answer: Sequence[Any], asked: Place) -> SlotMap:
    """The answer to CLUSTER SLOTS of the node at ``asked``.

    A node that does not know its own address leaves it out: it is where it was asked.
    """
    return SlotMap(
        Shard(
            int(first),
            int(last),
            _read_place(nodes[0], asked),
            tuple(_read_place(one, asked) for one in nodes[1:]),
        )
        for first, last, *nodes in answer
    )


def _read_place(node: Sequence[Any], asked: Place) -> Place:
    host, port = node[0], int(node[1])
    name = host.decode() if isinstance(host, bytes) else host
    return (asked[0] if name in (None, "", "?") else name, port)
