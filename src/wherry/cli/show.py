"""``wherry status`` and ``wherry partitions``: who works, on what, and what waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..broker.capabilities import MISSED
from ..broker.connect import Store
from ..broker.link import Link
from ..broker.namespaces import read_namespace
from ..broker.scripts import fit_scripts
from ..broker.wire import Keys
from ..model import MemberInfo, PartitionInfo
from .nodes import NodeInfo, nodes_data, nodes_of, nodes_table
from .tables import shorten, span, table

UNUSED = "nobody has used it yet: no partitions, no workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at a namespace.

    Attributes:
        namespace: its name.
        store: where it is, without a password.
        generation: of the namespace's data, "" if nobody has used it yet.
        members: living workers in order of joining.
        partitions: all of them, in order.
        paused_ms: for how long it has been paused, None if it is not.
        nodes: of a cluster; empty if there is one server.
    """

    namespace: str
    store: str
    generation: str
    members: Sequence[MemberInfo]
    partitions: Sequence[PartitionInfo]
    paused_ms: int | None = None
    nodes: Sequence[NodeInfo] = ()

    @property
    def backlog(self) -> int:
        """Unfinished entries."""
        return sum(one.backlog for one in self.partitions)

    @property
    def oldest_ms(self) -> int:
        """For how long the first of them has waited."""
        return max((one.oldest_ms for one in self.partitions), default=0)

    @property
    def dead(self) -> int:
        """Dead letters."""
        return sum(one.dead for one in self.partitions)

    @property
    def free(self) -> int:
        """Partitions without an owner."""
        return sum(not (one.owner or one.is_away) for one in self.partitions)

    def total(self, field: str) -> int:
        """What all workers say of themselves, together."""
        return sum(number(one, field) for one in self.members)


def looking(store: Store, namespace: str) -> Callable[[Link], Awaitable[Status]]:
    """What looks at a namespace of a store."""

    async def look(link: Link) -> Status:
        return await read_status(link, store, namespace)

    return look


async def read_status(link: Link, store: Store, namespace: str) -> Status:
    """Look at a namespace.

    Raises:
        StoreUnavailable: Redis cannot be reached.
        StoreRefused: Redis refuses the login or a command.
    """
    scripts = await fit_scripts(link, memory=store.is_memory)
    found = await read_namespace(link, scripts, Keys(namespace))
    return Status(
        namespace=namespace,
        store=store.where,
        generation=found.generation,
        members=found.members,
        partitions=found.partitions,
        paused_ms=found.paused_ms,
        nodes=nodes_of(found.partitions, store.topology),
    )


def as_data(status: Status) -> dict[str, object]:
    """The status for JSON; numbers are numbers, times are milliseconds."""
    return {
        "namespace": status.namespace,
        "store": status.store,
        "generation": status.generation,
        "paused_ms": status.paused_ms,
        "members": [
            {
                "worker": one.worker_id,
                "state": state_of(one),
                "partitions": held(status, one),
                "in_flight": number(one, "in_flight"),
                "fields": one.fields,
            }
            for one in status.members
        ],
        "nodes": nodes_data(status.nodes),
        "partitions": partitions_data(status),
        "backlog": status.backlog,
        "oldest_ms": status.oldest_ms,
        "in_flight": status.total("in_flight"),
        "dead": status.dead,
        "free": status.free,
        "lacks": lacks(status),
    }


def partitions_data(status: Status) -> list[dict[str, object]]:
    """The partitions for JSON."""
    return [
        {
            "partition": one.partition,
            "owner": one.owner,
            "lease_ms": one.lease_ms,
            "backlog": one.backlog,
            "oldest_ms": one.oldest_ms,
            "dead": one.dead,
            "node": one.node,
            "is_away": one.is_away,
        }
        for one in status.partitions
    ]


def as_table(status: Status) -> str:
    """The status for people, at most 80 columns; like neighbours share a line."""
    blocks = [head(status)]
    if status.members:
        rows = [
            [
                shorten(one.worker_id, 34),
                state_of(one),
                str(held(status, one)),
                str(number(one, "in_flight")),
                shorten(one.fields.get("version", ""), 10),
            ]
            for one in status.members
        ]
        titles = ["WORKER", "STATE", "PARTITIONS", "IN FLIGHT", "VERSION"]
        blocks.append(table(titles, rows, {0, 1, 4}))
    if missed := lacks(status):
        blocks.append(table(["REDIS LACKS", "SO"], [list(one) for one in missed.items()], {0, 1}))
    if status.nodes:
        blocks.append(nodes_table(status.nodes))
    if status.partitions:
        blocks.append(partitions_table(status, with_head=False))
    return "\n\n".join(blocks)


def partitions_table(status: Status, *, with_head: bool = True) -> str:
    """The partitions for people; like neighbours share a line."""
    if with_head and not status.partitions:
        return head(status)
    titles = ["PARTITION", "OWNER", "LEASE", "BACKLOG", "OLDEST", "DEAD LETTERS"]
    rows = table(titles, _partition_rows(status.partitions), {0, 1})
    return f"{head(status)}\n\n{rows}" if with_head else rows


def head(status: Status) -> str:
    """Where we look, whether it is paused, and the totals."""
    lines = [f"namespace {status.namespace} at {status.store}"]
    if status.paused_ms is not None:
        lines.append(
            f"PAUSED for {span(status.paused_ms / 1000)}: workers begin nothing; "
            "wherry resume lets them go on"
        )
    if not status.partitions:
        return "\n".join([*lines, UNUSED])
    oldest = f" (oldest {span(status.oldest_ms / 1000)})" if status.backlog else ""
    lines.append(
        f"workers {len(status.members)}, partitions {len(status.partitions)} "
        f"({status.free} free), dead letters {status.dead}"
    )
    lines.append(f"backlog {status.backlog}{oldest}, in flight {status.total('in_flight')}")
    return "\n".join(lines)


def state_of(member: MemberInfo) -> str:
    """What a worker is at: running, paused or draining; "?" if it does not say."""
    return member.fields.get("state", "?")


def lacks(status: Status) -> dict[str, str]:
    """What the server lacks for some worker -> what is missed by that."""
    said = {name for one in status.members for name in one.fields.get("lacks", "").split(",")}
    return {name: missed for name, missed in MISSED.items() if name in said}


def number(member: MemberInfo, field: str) -> int:
    """A number that a worker says of itself, 0 if it does not."""
    text = member.fields.get(field, "")
    return int(text) if text.isdecimal() else 0


def held(status: Status, member: MemberInfo) -> int:
    """How many partitions a worker owns by their leases."""
    return sum(one.owner == member.worker_id for one in status.partitions)


def _partition_rows(partitions: Sequence[PartitionInfo]) -> list[list[str]]:
    rows: list[list[str]] = []
    for (owner, backlog, dead, is_away), group in groupby(
        partitions, key=lambda one: (one.owner, one.backlog, one.dead, one.is_away)
    ):
        same = list(group)
        alike = len(same) > 1 and not backlog and not dead
        for run in [same] if alike else [[one] for one in same]:
            first, last = run[0].partition, run[-1].partition
            lease = f"{min(one.lease_ms for one in run) / 1000:.1f} s" if owner else "-"
            oldest = span(run[0].oldest_ms / 1000) if backlog else "-"
            name = str(first) if first == last else f"{first}-{last}"
            owned = shorten(owner, 30) or ("(its node is away)" if is_away else "(free)")
            rows.append([name, owned, lease, str(backlog), oldest, str(dead)])
    return rows
