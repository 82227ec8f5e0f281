"""Rounds: how the messages and faults that were asked for are spread over fresh servers.

Memory stays bounded by what one round sends, and each phase has the lease it needs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .failover import BY_SENTINELS, IN_CLUSTER, LATE, WHOLE

MOST_MESSAGES = 250_000
DEFAULT_LEASE_S = 6.0
AT_DEFAULT: tuple[str, ...] = ("kill", "stop", "term")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: a server, a fleet, messages and faults; then everything is checked.

    Attributes:
        name: for logs and reports.
        lease_s: length of a lease.
        messages: how many at least.
        scopes: whom they are for.
        workers: of the fleet at its start.
        at_once: how many faults at a time.
        faults: kind -> how many that count.
        failovers: the same for failovers; the server has a replica if there are any.
        is_guarded: they are done by sentinels, which everybody asks.
        every_s: a primary of a cluster is killed whenever so many seconds have gone by; 0: there
            is no cluster.
        replicas: how many must have a message for it to be accepted.
        seed: of all that is random.
    """

    name: str
    lease_s: float
    messages: int
    scopes: int
    workers: int
    at_once: int
    faults: Mapping[str, int]
    failovers: Mapping[str, int]
    seed: int
    is_guarded: bool = False
    every_s: float = 0.0
    replicas: int = 0


def plan(options: argparse.Namespace) -> list[Round]:
    """Rounds with the short lease, then one with the default lease, then one with failovers.

    With sentinels or a cluster there is one round alone: what else strikes needs the proxy.
    """
    if options.sentinel or options.cluster:
        kills = max(1, options.failovers // 2)
        return [
            Round(
                name="sentinel" if options.sentinel else "cluster",
                lease_s=options.lease,
                messages=options.messages,
                scopes=options.scopes,
                workers=options.workers,
                at_once=max(1, options.workers - 1),
                faults={"kill": kills, "term": kills},
                failovers={BY_SENTINELS if options.sentinel else IN_CLUSTER: options.failovers},
                seed=options.seed,
                is_guarded=options.sentinel,
                every_s=options.every if options.cluster else 0.0,
                replicas=options.replicas,
            )
        ]
    faults: dict[str, int] = {
        "kill": options.kills,
        "stop": options.stops,
        "term": options.terms,
        "redis": options.redis_kills,
        "out": options.scales,
        "in": options.scales,
        **dict.fromkeys(("delay", "cut", "hole", "half"), int(options.network)),
    }
    at_default = dict.fromkeys(AT_DEFAULT, int(options.default_lease_faults))
    failovers = {WHOLE: options.failovers // 2, LATE: math.ceil(options.failovers / 2)}
    short = {kind: max(0, count - at_default.get(kind, 0)) for kind, count in faults.items()}
    weights = {
        "short": sum(short.values()),
        "default": 2 * sum(at_default.values()),
        "failover": 3 * sum(failovers.values()),
    }
    whole = sum(weights.values()) or 1
    messages = {kind: options.messages * weight // whole for kind, weight in weights.items()}
    if not sum(weights.values()):
        messages["short"] = options.messages
    rounds: list[Round] = []

    def add(
        kind: str, lease_s: float, wanted: Mapping[str, int], switched: Mapping[str, int]
    ) -> None:
        count = max(1, math.ceil(messages[kind] / MOST_MESSAGES))
        is_slow = lease_s >= DEFAULT_LEASE_S
        for number in range(count):
            rounds.append(
                Round(
                    name=f"{kind}-{number + 1}",
                    lease_s=lease_s,
                    messages=math.ceil(messages[kind] / count),
                    scopes=options.scopes,
                    workers=options.workers * 2 if is_slow else options.workers,
                    at_once=options.workers if is_slow else max(1, options.workers - 1),
                    faults=_part(wanted, number, count),
                    failovers=_part(switched, number, count),
                    seed=options.seed + len(rounds),
                )
            )

    if messages["short"]:
        add("short", options.lease, short, {})
    if messages["default"]:
        add("default", DEFAULT_LEASE_S, at_default, {})
    if messages["failover"]:
        kills = max(1, options.failovers // 4)
        add("failover", options.lease, {"kill": kills, "term": kills}, failovers)
    return rounds


def _part(wanted: Mapping[str, int], number: int, count: int) -> dict[str, int]:
    """The share of one round of several."""
    return {
        kind: total * (number + 1) // count - total * number // count
        for kind, total in wanted.items()
    }
