"""A cluster: what each of its nodes says of itself, and whether all slots are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..broker.slots import SLOTS
from ..broker.topology import Topology
from .finding import Finding, Level, error, ok, warning

_COVERAGE = "config:cluster-require-full-coverage"


def judge_topology(topology: Topology) -> list[Finding]:
    """Who serves the slots."""
    shards = topology.map.shards
    served = sum(one.last - one.first + 1 for one in shards)
    primaries = {one.primary: len(one.replicas) for one in shards}
    text = f"{len(primaries)} primaries, {sum(primaries.values())} replicas"
    if served < SLOTS:
        return [
            error(
                "cluster",
                f"{text}; {SLOTS - served} of {SLOTS} slots are served by nobody",
                "start the nodes that had them, or give them to others (CLUSTER ADDSLOTS)",
            )
        ]
    return [ok("cluster", f"{text}, all slots are served")]


def judge_coverage(facts: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Whether a part of the slots without a node stops the others, too."""
    stopping = [node for node, said in facts.items() if said.get(_COVERAGE) == "yes"]
    if not stopping:
        return []
    return [
        warning(
            "coverage",
            "when some slots are served by nobody, the nodes refuse all others, too: "
            + ", ".join(stopping),
            "CONFIG SET cluster-require-full-coverage no, on each node, and the same in its "
            "configuration file",
        )
    ]


def merge(findings: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """What nodes have in common is said once, and the rest with their names."""
    by_text: dict[Finding, list[str]] = {}
    for node, some in findings.items():
        for one in some:
            by_text.setdefault(one, []).append(node)
    merged: list[Finding] = []
    for one, nodes in by_text.items():
        if len(nodes) == len(findings):
            merged.append(one)
        else:
            text = f"{', '.join(nodes)}: {one.text}"
            merged.append(
                Finding(level=one.level, subject=one.subject, text=text, remedy=one.remedy)
            )
    order = [Level.OK, Level.NOTE, Level.WARNING, Level.ERROR]
    subjects = list(dict.fromkeys(one.subject for one in merged))
    return sorted(merged, key=lambda one: (subjects.index(one.subject), order.index(one.level)))
