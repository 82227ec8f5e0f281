"""Purging: all keys of a namespace, found and deleted in small steps that hold nobody up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

from .cluster import is_cluster, servers_of
from .link import Link
from .slots import slot_of
from .wire import Keys

_SCANNED_AT_ONCE = 1_000
_DELETED_AT_ONCE = 200


@dataclass(slots=True, eq=False)
class Stock:
    """What a namespace has in Redis.

    Attributes:
        kinds: kind of key, as docs/protocol.md names it -> how many there are.
        unfinished: entries that wait or are in hand.
        dead: dead letters.
    """

    kinds: Counter[str] = field(default_factory=lambda: Counter[str]())
    unfinished: int = 0
    dead: int = 0


async def count_keys(link: Link, keys: Keys) -> Stock:
    """Look at all keys of a namespace; reads only.

    Goes through the keys of the whole database, a thousand at a time.
    """
    stock = Stock()
    async with aclosing(_find_keys(link, keys)) as found:
        async for names in found:
            stock.kinds.update(_kind(one) for one in names)
            streams = [one for one in names if _kind(one) in ("in", "dead")]
            sizes = await link.calls([("XLEN", one) for one in streams]) if streams else []
            for name, size in zip(streams, sizes, strict=True):
                if isinstance(size, int):  # a key of another type has no length to tell
                    if _kind(name) == "in":
                        stock.unfinished += size
                    else:
                        stock.dead += size
    return stock


async def delete_keys(link: Link, keys: Keys) -> int:
    """Delete all keys of a namespace; returns how many there were.

    The meta hash goes last: whoever sends meanwhile still finds the partition count. Called again
    after it was broken off it goes on.
    """
    count = 0
    async with aclosing(_find_keys(link, keys)) as found:
        async for names in found:
            rest = [one for one in names if one.decode("utf-8", "replace") != keys.meta]
            for some in _bundles(rest, by_slot=is_cluster(link)):
                # UNLINK: the memory of large streams is freed in the background.
                count += await link.call("UNLINK", *some)
    return count + await link.call("UNLINK", keys.meta)


async def _find_keys(link: Link, keys: Keys) -> AsyncGenerator[list[bytes]]:
    """Yield all keys of a namespace in lists; one may come twice."""
    own = re.compile(rb"\{%b(:\d+)?\}:" % re.escape(keys.namespace.encode()))
    pattern = f"{{{keys.namespace}[:}}]*"
    for server in await servers_of(link):
        cursor: bytes | int | None = None
        while cursor is None or int(cursor) != 0:
            answer = await server.call(
                "SCAN", cursor or 0, "MATCH", pattern, "COUNT", _SCANNED_AT_ONCE
            )
            cursor, names = cast("tuple[bytes | int, list[bytes]]", answer)
            mine = [one for one in names if own.match(one)]
            if mine:
                yield mine


def _bundles(names: Sequence[bytes], *, by_slot: bool) -> Iterator[Sequence[bytes]]:
    """Names that may stand in one command."""
    bundles: dict[int, list[bytes]] = {}
    for name in names:
        bundles.setdefault(slot_of(name) if by_slot else 0, []).append(name)
    for some in bundles.values():
        for start in range(0, len(some), _DELETED_AT_ONCE):
            yield some[start : start + _DELETED_AT_ONCE]


def _kind(name: bytes) -> str:
    return name.partition(b"}:")[2].partition(b":")[0].decode("utf-8", "replace")
