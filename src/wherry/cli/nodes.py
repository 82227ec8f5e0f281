"""Nodes of a cluster: what each serves of a namespace, and how many would follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..broker.topology import Topology
from ..model import Partition, PartitionInfo
from .tables import table


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """One node that serves partitions.

    Attributes:
        name: host and port.
        replicas: how many nodes would take over.
        partitions: those that it serves.
        backlog: unfinished entries of these.
        dead: dead letters of these.
        is_away: it does not answer.
    """

    name: str
    replicas: int
    partitions: Sequence[Partition]
    backlog: int
    dead: int
    is_away: bool


def nodes_of(partitions: Sequence[PartitionInfo], topology: Topology | None) -> list[NodeInfo]:
    """The nodes that serve these partitions, by name; none if there is one server."""
    if topology is None:
        return []
    replicas = {
        f"{host}:{port}": len(one.replicas)
        for one in topology.map.shards
        for host, port in (one.primary,)
    }
    by_node: dict[str, list[PartitionInfo]] = {}
    for one in partitions:
        by_node.setdefault(one.node, []).append(one)
    return [
        NodeInfo(
            name=name,
            replicas=replicas.get(name, 0),
            partitions=[one.partition for one in some],
            backlog=sum(one.backlog for one in some),
            dead=sum(one.dead for one in some),
            is_away=any(one.is_away for one in some),
        )
        for name, some in sorted(by_node.items())
    ]


def nodes_data(nodes: Sequence[NodeInfo]) -> list[dict[str, object]]:
    """The nodes for JSON."""
    return [
        {
            "node": one.name,
            "is_away": one.is_away,
            "replicas": one.replicas,
            "partitions": list(one.partitions),
            "backlog": one.backlog,
            "dead": one.dead,
        }
        for one in nodes
    ]


def nodes_table(nodes: Sequence[NodeInfo]) -> str:
    """The nodes for people."""
    titles = ["NODE", "STATE", "PARTITIONS", "BACKLOG", "DEAD LETTERS", "REPLICAS"]
    rows = [
        [
            one.name or "(none)",
            "AWAY" if one.is_away else "serves",
            str(len(one.partitions)),
            "?" if one.is_away else str(one.backlog),
            "?" if one.is_away else str(one.dead),
            str(one.replicas),
        ]
        for one in nodes
    ]
    return table(titles, rows, {0, 1})
