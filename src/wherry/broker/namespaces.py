"""Namespaces from outside: what is in one, whether it is paused, and what it holds of a scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ..model import AttemptsRow, EntryId, MemberInfo, Partition, PartitionInfo, ScopeId
from .attempts import read_row
from .leases import read_members, read_pause
from .link import Link
from .owners import read_owners
from .scripts import Scripts
from .streams import read_partitions
from .wire import Keys

LOOKED_AT = 1_000
LOOKED_AT_BYTES = 2**22
"""So many entries, and about so many bytes of them, are looked at for those of one scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """A namespace as a whole.

    Attributes:
        generation: of its data, "" if nobody has used it yet.
        paused_ms: for how long it has been paused, None if it is not.
        members: living workers in order of joining.
        partitions: all of them, in order.
    """

    generation: str
    paused_ms: int | None
    members: list[MemberInfo]
    partitions: list[PartitionInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeInfo:
    """What Redis holds of one scope.

    Attributes:
        partition: where it belongs.
        owner: worker id of the lease, "" if free.
        lease_ms: what is left of it.
        waiting: its entries among those that were looked at.
        first: the first of them, or "".
        looked_at: so many of the partition's entries were.
        backlog: so many there are.
        replies: number of replies that are kept.
        replies_ttl_ms: for how long, -1 for ever.
        state_bytes: size of its durable state, 0 without.
        state_version: id of the entry whose commit wrote it, or "".
        state_ttl_ms: for how long it is kept, -1 for ever.
    """

    partition: Partition
    owner: str
    lease_ms: int
    waiting: int
    first: EntryId
    looked_at: int
    backlog: int
    replies: int
    replies_ttl_ms: int
    state_bytes: int
    state_version: str
    state_ttl_ms: int


async def read_namespace(link: Link, scripts: Scripts, keys: Keys) -> NamespaceInfo:
    """Look at a namespace; nothing is written, and an unused one is not made.

    Raises:
        WherryError: as `Link.call` says.
    """
    count, generation, paused, now_ms = await _read_meta(link, keys)
    partitions: list[PartitionInfo] = []
    if count:
        numbers = [Partition(number) for number in range(count)]
        partitions = await read_partitions(link, scripts, keys, numbers)
    return NamespaceInfo(
        generation=generation,
        paused_ms=max(0, now_ms - paused) if paused else None,
        members=await read_members(link, keys),
        partitions=partitions,
    )


async def set_pause(link: Link, keys: Keys, *, paused: bool) -> bool:
    """Pause a namespace or let it go on; workers are told at once, and read it at each beat.

    Returns:
        Whether that changed anything.

    Raises:
        WherryError: as `Link.call` says.
    """
    if paused:
        _, _, _, now_ms = await _read_meta(link, keys)
        changed = await link.call("HSETNX", keys.meta, "paused", now_ms)
    else:
        changed = await link.call("HDEL", keys.meta, "paused")
    await link.call("PUBLISH", keys.released, "paused" if paused else "resumed")
    return changed == 1


async def is_member(link: Link, keys: Keys, worker_id: str) -> bool:
    """Whether a worker lives, as far as its beats tell."""
    return await link.call("ZSCORE", keys.members, worker_id) is not None


async def read_scope(
    link: Link, scripts: Scripts, keys: Keys, partition: Partition, scope_id: ScopeId
) -> ScopeInfo:
    """What Redis holds of a scope; bounded, however much that is.

    Raises:
        WherryError: as `Link.call` says.
    """
    owners = await read_owners(link, scripts.survey, keys, [partition])
    owner, lease_ms = owners[0] or ("", 0)
    about = (scope_id, LOOKED_AT, LOOKED_AT_BYTES)
    answer = await scripts.waiting.run(link, (keys.entries(partition),), about)
    waiting, first, looked_at, backlog = cast("tuple[int, bytes, int, int]", answer)
    replies, state = keys.replies(partition, scope_id), keys.state(partition, scope_id)
    answers = await link.calls(
        [
            *(("XLEN", replies), ("PTTL", replies)),
            *(("HSTRLEN", state, "state"), ("HGET", state, "v"), ("PTTL", state)),
        ]
    )
    for one in answers:
        if isinstance(one, Exception):
            raise one
    kept, kept_ms, size, version, state_ms = answers
    return ScopeInfo(
        partition=partition,
        owner=owner if lease_ms > 0 else "",
        lease_ms=max(0, lease_ms),
        waiting=waiting,
        first=EntryId(first.decode()),
        looked_at=looked_at,
        backlog=backlog,
        replies=kept,
        replies_ttl_ms=kept_ms,
        state_bytes=size,
        state_version=(version or b"").decode(),
        state_ttl_ms=state_ms,
    )


async def read_attempts(
    link: Link, keys: Keys, partition: Partition, entry_id: str
) -> AttemptsRow | None:
    """What is written of the failures of an entry, None if it never failed."""
    packed = cast("bytes | None", await link.call("HGET", keys.attempts(partition), entry_id))
    return None if packed is None else read_row(packed)


async def read_redis_ms(link: Link) -> int:
    """Redis' clock, unix milliseconds."""
    seconds, micros = cast("list[bytes]", await link.call("TIME"))
    return int(seconds) * 1000 + int(micros) // 1000


async def _read_meta(link: Link, keys: Keys) -> tuple[int, str, int, int]:
    """Partition count and generation, since when it is paused (0: it is not), and Redis' clock."""
    # In one write: in a cluster it is the clock of the node that has the hash.
    answers = await link.calls(
        [("HMGET", keys.meta, "partitions", "generation", "paused"), ("TIME",)]
    )
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    (count, generation, paused), (seconds, micros) = answers
    return (
        int(count or 0),
        (generation or b"").decode(),
        read_pause(cast("bytes | None", paused)),
        int(seconds) * 1000 + int(micros) // 1000,
    )
