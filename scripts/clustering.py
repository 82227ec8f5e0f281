"""Redis Cluster from outside: forms one of running nodes, sees who owns what, moves slots.

For tests, fault runs and benchmarks. A node is whatever has a port on the loopback interface and
can be started and ended; every call goes over a connection of its own, so a node may be dead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from .ports import free_port

HOST = "127.0.0.1"
AGREE_S = 60.0
CALL_S = 5.0
MIGRATE_MS = 5_000
OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
    # A part of the slots without an owner stops nobody else; a replica may always take over.
    *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
    *("--cluster-migration-barrier", "100", "--repl-diskless-sync-delay", "0"),
)
"""What a node needs to be told, beside its ``--cluster-node-timeout``."""
BUS = 10_000
"""A node talks to the others on its port and so many."""

LAST_PORT = 32_767

DOWN = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, OSError)


class Node(Protocol):
    """One server of a cluster."""

    @property
    def port(self) -> int:
        """Where it listens on the loopback interface."""
        ...

    @property
    def password(self) -> str | None:
        """What it requires."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether its process runs, and is not paused."""
        ...

    def start(self) -> None:
        """Start it again with what it had, and wait until it answers."""
        ...

    def kill(self) -> None:
        """End it as SIGKILL does."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A node as one of them sees it.

    Attributes:
        id: its name.
        primary: id of the primary that it follows; empty if it is one itself.
        slots: ranges that it owns, both ends included.
        is_failed: whether the cluster has given it up, or does not know it yet.
    """

    id: str
    primary: str
    slots: tuple[tuple[int, int], ...]
    is_failed: bool

    def owns(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.slots)


View = Mapping[int, Member]
"""The whole cluster as one node, or all of them, see it: members by their ports."""


def connected(node: Node) -> redis.Redis:
    """A client of a node that tries nothing twice; to be closed."""
    once = Retry(NoBackoff(), retries=0)
    return redis.Redis(
        HOST, node.port, password=node.password, protocol=2, retry=once, socket_timeout=CALL_S
    )


def ask(node: Node, *command: Any) -> Any:
    """Carry out one command on a node.

    Raises:
        redis.RedisError: it is down, silent for `CALL_S`, or refused the command.
    """
    with connected(node) as client:
        return client.execute_command(*command)


def look(node: Node) -> View | None:
    """The cluster as a node sees it; None if it is down, or says that the cluster is."""
    try:
        said: dict[str, dict[str, Any]] = ask(node, "CLUSTER NODES")
        is_well = ask(node, "CLUSTER INFO")["cluster_state"] == "ok"
    except DOWN:
        return None
    return dict(map(_member, said.items())) if is_well else None


def _member(item: tuple[str, dict[str, Any]]) -> tuple[int, Member]:
    place, about = item
    flags = set(about["flags"].split(","))
    return int(place.rpartition(":")[2]), Member(
        id=about["node_id"],
        primary="" if about["master_id"] == "-" else about["master_id"],
        slots=tuple(sorted((int(one[0]), int(one[-1])) for one in about["slots"])),
        is_failed=not flags.isdisjoint({"fail", "noaddr", "handshake"}),
    )


def is_synced(replica: Node) -> bool:
    """Whether a replica follows its primary and has everything that was there at first."""
    try:
        return ask(replica, "INFO", "replication").get("master_link_status") == "up"
    except DOWN:
        return False


def wait_for(is_true: Callable[[], object], what: str, within_s: float = AGREE_S) -> None:
    """Wait for something that servers do by themselves.

    Raises:
        TimeoutError: it was not within so many seconds.
    """
    until_s = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


N = TypeVar("N", bound=Node)


class Cluster(Generic[N]):
    """Running nodes, started with `OPTIONS`; a cluster once they have been `form`ed.

    Attributes:
        nodes: all of them, in the order given; who is a primary changes.
    """

    def __init__(self, nodes: Sequence[N]) -> None:
        self.nodes = tuple(nodes)

    @property
    def places(self) -> str:
        """``host:port`` of all nodes, joined by commas, as in a URL."""
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def form(self, primaries: int) -> None:
        """Give the first nodes an equal part of the slots each, and the others as replicas."""
        heads, others = self.nodes[:primaries], self.nodes[primaries:]
        ids = [ask(node, "CLUSTER", "MYID").decode() for node in self.nodes]
        for number, node in enumerate(heads):
            first = REDIS_CLUSTER_HASH_SLOTS * number // primaries
            end = REDIS_CLUSTER_HASH_SLOTS * (number + 1) // primaries
            ask(node, "CLUSTER", "ADDSLOTS", *range(first, end))
        for number, node in enumerate(self.nodes):
            # All different, or the nodes settle it one after another.
            ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                ask(node, "CLUSTER", "MEET", HOST, self._bus_of(other) - BUS)
        wait_for(self._all_met, "the nodes know each other")
        for number, node in enumerate(others):
            ask(node, "CLUSTER", "REPLICATE", ids[number % primaries])
        self.wait_agreed()

    def _bus_of(self, node: N) -> int:
        """The port on which a node hears others."""
        return node.port + BUS

    def view(self) -> View | None:
        """What all live nodes say of the cluster; None while they differ.

        Also None while the cluster has not given up a node that is down, or has given up another.
        """
        views = [look(node) for node in self.nodes if node.is_live]
        agreed = views[0] if views and all(one == views[0] for one in views) else None
        if agreed is None or len(agreed) != len(self.nodes):
            return None
        live = {node.port for node in self.nodes if node.is_live}
        return (
            agreed if all(agreed[port].is_failed == (port not in live) for port in agreed) else None
        )

    def wait_agreed(self, within_s: float = AGREE_S) -> View:
        """Wait until live nodes agree, own all slots, and their replicas follow; what they say."""
        found: list[View] = []

        def is_agreed() -> bool:
            view = self.view()
            if view is None:
                return False
            owners = [one for one in view.values() if one.slots and not one.is_failed]
            owned = sum(last - first + 1 for one in owners for first, last in one.slots)
            followers = [node for node in self.nodes if node.is_live and view[node.port].primary]
            found[:] = [view]
            return owned == REDIS_CLUSTER_HASH_SLOTS and all(map(is_synced, followers))

        wait_for(is_agreed, "the nodes agree", within_s)
        return found[0]

    def primaries(self) -> list[N]:
        """Live nodes that own slots, by the order of these."""
        view = self.wait_agreed()
        owners = [node for node in self.nodes if node.is_live and view[node.port].slots]
        return sorted(owners, key=lambda node: view[node.port].slots)

    def replica_of(self, primary: N) -> N:
        """A live node that follows a primary."""
        view = self.wait_agreed()
        name = view[primary.port].id
        return next(one for one in self.nodes if one.is_live and view[one.port].primary == name)

    def owner(self, slot: int | str) -> N:
        """The primary of a slot, or of a key's slot."""
        number = slot if isinstance(slot, int) else slot_of(slot)
        view = self.wait_agreed()
        return next(node for node in self.nodes if view[node.port].owns(number))

    def fail_over(self, primary: N, within_s: float = AGREE_S) -> N:
        """Kill a primary, wait until its replica has its slots, and start it again; the new one."""
        heir = self.replica_of(primary)
        primary.kill()
        self.wait_primary(heir, within_s)
        self.bring_back(primary, heir)
        return heir

    def bring_back(self, node: N, primary: N) -> None:
        """Start a node that was killed, as the replica of the primary in its place.

        By itself it would follow whoever took its last slot: another one, if slots were moved
        meanwhile.
        """
        node.start()
        view = self.wait_agreed()
        if view[node.port].primary != view[primary.port].id:
            ask(node, "CLUSTER REPLICATE", view[primary.port].id)
            self.wait_agreed()

    def hand_over(self, primary: N, within_s: float = AGREE_S) -> N:
        """Let the replica of a primary take its place without a loss; the new primary."""
        heir = self.replica_of(primary)
        ask(heir, "CLUSTER", "FAILOVER")
        self.wait_primary(heir, within_s)
        self.wait_agreed(within_s)
        return heir

    def wait_primary(self, node: N, within_s: float = AGREE_S) -> None:
        """Wait until all live nodes agree that a node owns slots."""

        def is_primary() -> bool:
            view = self.view()
            return view is not None and bool(view[node.port].slots)

        wait_for(is_primary, f"the node on port {node.port} is a primary", within_s)

    def move(self, slots: Sequence[int], target: N) -> Move:
        """Begin to move slots of one primary to another; nothing happens before its `begin`."""
        return Move(self, self.owner(slots[0]), target, slots)

    def _all_met(self) -> bool:
        views = [look(node) for node in self.nodes]
        return all(view is not None and len(view) == len(self.nodes) for view in views) and not any(
            member.is_failed for view in views if view for member in view.values()
        )


class Move:
    """Slots on their way from one primary to another, step by step.

    Between `begin` and `end` a key that has been carried is answered with ASK, and a command over
    several keys of which not all are in one place with TRYAGAIN. Use it as a context manager, or
    call `begin` and `end`.

    Attributes:
        source, target: from where and to where.
        slots: what is moved.
    """

    def __init__(
        self, cluster: Cluster[Any], source: Node, target: Node, slots: Sequence[int]
    ) -> None:
        self.source, self.target = source, target
        self.slots = tuple(slots)
        self._nodes: tuple[Node, ...] = cluster.nodes
        self._ids = [ask(node, "CLUSTER", "MYID").decode() for node in (source, target)]

    def begin(self) -> None:
        """Say at both ends that the slots are under way."""
        source_id, target_id = self._ids
        self._set_slots(self.target, "IMPORTING", source_id)
        self._set_slots(self.source, "MIGRATING", target_id)

    def carry(self, count: int = 100) -> int:
        """Take at most so many keys along; how many went, 0 when none is left."""
        left = count
        with connected(self.source) as source:
            for slot in self.slots:
                if left:
                    names: Any = source.execute_command("CLUSTER GETKEYSINSLOT", slot, left)
                    self._carry(source, names)
                    left -= len(names)
        return count - left

    def carry_keys(self, *names: str | bytes) -> None:
        """Take these keys along; those that do not exist are passed over."""
        with connected(self.source) as source:
            self._carry(source, names)

    def end(self) -> None:
        """Take along what is left, and give the slots to the target for good."""
        while self.carry(1_000):
            pass
        for node in (self.target, self.source):
            self._set_slots(node, "NODE", self._ids[1])
        for node in self._nodes:  # the others would learn it by themselves, a little later
            if node.is_live and node not in (self.source, self.target):
                with contextlib.suppress(*DOWN):  # a replica refuses; or it is down
                    self._set_slots(node, "NODE", self._ids[1])

    def _carry(self, source: redis.Redis, names: Sequence[str | bytes]) -> None:
        if names:
            password = self.target.password
            login = ("AUTH", password) if password else ()
            place = (HOST, self.target.port, "", 0, MIGRATE_MS)
            source.execute_command("MIGRATE", *place, "REPLACE", *login, "KEYS", *names)

    def _set_slots(self, node: Node, state: str, node_id: str) -> None:
        with connected(node) as client, client.pipeline(transaction=False) as pipeline:
            for slot in self.slots:
                pipeline.execute_command("CLUSTER SETSLOT", slot, state, node_id)
            pipeline.execute()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.end()


def find_port() -> int:
    """A free one whose bus port is not of those that the system gives to outgoing connections."""
    while (port := free_port()) + BUS > LAST_PORT:
        pass
    return port


def slot_of(key: str) -> int:
    """The slot of a key, by its hash tag if it has one."""
    return key_slot(key.encode())
