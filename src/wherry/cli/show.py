"""``wherry status``: who works, on what, and what waits. Reads only; creates no namespace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from ..broker.capabilities import MISSED
from ..broker.connect import Store
from ..broker.leases import read_members
from ..broker.scripts import fit_scripts
from ..broker.streams import read_partitions
from ..broker.wire import Keys
from ..model import MemberInfo, Partition, PartitionInfo

_WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at a namespace.

    Attributes:
        namespace: its name.
        store: where it is, without a password.
        generation: of the namespace's data, "" if nobody has used it yet.
        members: living workers in order of joining.
        partitions: all of them, in order.
    """

    namespace: str
    store: str
    generation: str
    members: Sequence[MemberInfo]
    partitions: Sequence[PartitionInfo]


async def read_status(store: Store, namespace: str) -> Status:
    """Look at a namespace.

    Raises:
        StoreUnavailable: Redis cannot be reached.
        StoreRefused: Redis refuses the login or a command.
    """
    keys = Keys(namespace)
    link = store.link()
    try:
        answer = await link.call("HMGET", keys.meta, "partitions", "generation")
        count, generation = cast("list[bytes | None]", answer)
        members = await read_members(link, keys)
        partitions: list[PartitionInfo] = []
        if count is not None:
            scripts = await fit_scripts(link, memory=store.is_memory)
            numbers = [Partition(number) for number in range(int(count))]
            partitions = await read_partitions(link, scripts.survey, keys, numbers)
    finally:
        await link.aclose()
    return Status(
        namespace=namespace,
        store=store.where,
        generation=(generation or b"").decode(),
        members=members,
        partitions=partitions,
    )


def as_json(status: Status) -> str:
    """The status as one JSON object; numbers are numbers, times are milliseconds."""
    return json.dumps(
        {
            "namespace": status.namespace,
            "store": status.store,
            "generation": status.generation,
            "members": [
                {
                    "worker": one.worker_id,
                    "partitions": _held(status, one),
                    "in_flight": _number(one.fields.get("in_flight")),
                    "fields": one.fields,
                }
                for one in status.members
            ],
            "partitions": [
                {
                    "partition": one.partition,
                    "owner": one.owner,
                    "lease_ms": one.lease_ms,
                    "backlog": one.backlog,
                    "dead": one.dead,
                }
                for one in status.partitions
            ],
            "backlog": sum(one.backlog for one in status.partitions),
            "in_flight": _in_flight(status),
            "dead": sum(one.dead for one in status.partitions),
            "free": sum(not one.owner for one in status.partitions),
            "lacks": _lacks(status),
        },
        indent=2,
    )


def as_table(status: Status) -> str:
    """The status for people, at most 80 columns; like neighbours share a line."""
    head = f"namespace {status.namespace} at {status.store}"
    if not status.partitions:
        return f"{head}\nnobody has used it yet: no partitions, no workers"
    free = sum(not one.owner for one in status.partitions)
    totals = (
        f"workers {len(status.members)}, partitions {len(status.partitions)} ({free} free), "
        f"backlog {sum(one.backlog for one in status.partitions)}, "
        f"in flight {_in_flight(status)}, "
        f"dead letters {sum(one.dead for one in status.partitions)}"
    )
    blocks = [f"{head}\n{totals}"]
    if lacks := _lacks(status):
        missed = [[name, what] for name, what in lacks.items()]
        blocks.append(_table(["REDIS LACKS", "SO"], missed, {0, 1}))
    if status.members:
        rows = [
            [
                _shorten(one.worker_id, 36),
                str(_held(status, one)),
                str(_number(one.fields.get("in_flight"))),
                one.fields.get("pid", ""),
                _shorten(one.fields.get("version", ""), 10),
            ]
            for one in status.members
        ]
        blocks.append(_table(["WORKER", "PARTITIONS", "IN FLIGHT", "PID", "VERSION"], rows, {0, 4}))
    titles = ["PARTITION", "OWNER", "LEASE", "BACKLOG", "DEAD LETTERS"]
    blocks.append(_table(titles, _partition_rows(status.partitions), {0, 1}))
    return "\n\n".join(blocks)


def _partition_rows(partitions: Sequence[PartitionInfo]) -> list[list[str]]:
    rows: list[list[str]] = []
    for (owner, backlog, dead), group in groupby(
        partitions, key=lambda one: (one.owner, one.backlog, one.dead)
    ):
        same = list(group)
        alike = len(same) > 1 and not backlog and not dead
        for run in [same] if alike else [[one] for one in same]:
            first, last = run[0].partition, run[-1].partition
            lease = f"{min(one.lease_ms for one in run) / 1000:.1f} s" if owner else "-"
            name = str(first) if first == last else f"{first}-{last}"
            rows.append([name, _shorten(owner, 36) or "(free)", lease, str(backlog), str(dead)])
    return rows


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: set[int]) -> str:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (titles, *rows)
    ]
    return "\n".join(line[:_WIDTH] for line in lines)


def _shorten(text: str, width: int) -> str:
    """Keep both ends: names of one fleet differ at either."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def _held(status: Status, member: MemberInfo) -> int:
    return sum(one.owner == member.worker_id for one in status.partitions)


def _in_flight(status: Status) -> int:
    return sum(_number(one.fields.get("in_flight")) for one in status.members)


def _lacks(status: Status) -> dict[str, str]:
    """What the server lacks for some worker -> what is missed by that."""
    said = {name for one in status.members for name in one.fields.get("lacks", "").split(",")}
    return {name: missed for name, missed in MISSED.items() if name in said}


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
