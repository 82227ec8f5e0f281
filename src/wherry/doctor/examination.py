"""The examination: everything is looked at, and what may not be looked at is said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

from ..broker.cluster import servers_of
from ..broker.connect import Store
from ..broker.link import Link
from ..broker.topology import Topology
from ..broker.wire import Keys
from ..config import Config
from ..errors import StoreError, StoreRefused, StoreUnavailable
from .cluster import judge_coverage, judge_topology, merge
from .features import examine_clock, examine_features
from .finding import Finding, error, note, warning
from .namespace import examine_namespace
from .rights import examine_rights
from .server import judge_server

_SINGLE = ("redis", "rediss", "unix")
_SETTINGS = (
    "save",
    "appendfsync",
    "stop-writes-on-bgsave-error",
    "cluster-require-full-coverage",
)


async def examine(store: Store, config: Config, wanted: Sequence[str]) -> list[Finding]:
    """Look at a server and a namespace; nothing is written.

    Args:
        store: where they are.
        config: settings, with the namespace.
        wanted: parts that this user must be able to play, see `wherry.doctor.rights.ROLES`.

    Raises:
        StoreUnavailable: Redis cannot be reached.
        StoreRefused: it refuses the login.
    """
    link = store.link()
    try:
        await link.call("PING")
    except StoreRefused as refusal:
        if "to run the" not in str(refusal):  # no right that could be granted: the login
            await link.aclose()
            raise
    try:
        return await _examine(store, link, config, wanted)
    finally:
        await link.aclose()


async def _examine(
    store: Store, link: Link, config: Config, wanted: Sequence[str]
) -> list[Finding]:
    keys = Keys(config.namespace)
    meta: dict[str, str] = {}
    role: list[str] = []

    async def look_at_server() -> list[Finding]:
        if store.topology is not None:
            return await _look_at_nodes(link, store.topology)
        facts = await _facts(link)
        role.append(facts.get("role", ""))
        return [*judge_server(facts), *_judge_scheme(facts, store.where.partition("://")[0])]

    async def look_at_namespace() -> list[Finding]:
        flat = cast("list[bytes]", await link.call("HGETALL", keys.meta))
        texts = [one.decode("utf-8", "replace") for one in flat]
        meta.update(zip(texts[::2], texts[1::2], strict=True))
        return await examine_namespace(store, link, config, meta)

    async def look_at_rights() -> list[Finding]:
        return await examine_rights(store, keys, wanted, is_used="generation" in meta)

    looks: list[tuple[str, Callable[[], Awaitable[list[Finding]]]]] = [
        ("server", look_at_server),
        ("features", lambda: examine_features(link)),
        ("clock", lambda: examine_clock(link)),
        ("namespace", look_at_namespace),
        ("rights", look_at_rights),
    ]
    findings: list[Finding] = []
    for subject, look in looks:
        try:
            findings += await look()
        except StoreRefused as refusal:
            findings.append(note(subject, f"not looked at: {refusal}"))
        except StoreUnavailable as failure:
            if store.topology is not None:
                findings.append(warning(subject, f"could not be looked at: {failure}", "see above"))
                continue
            if "slave" not in role:
                raise
            findings.append(note(subject, "not looked at on a replica: its primary knows"))
        except StoreError as failure:
            text = f"could not be looked at: {failure}"
            findings.append(warning(subject, text, "find out what answers there"))
    return findings


def _judge_scheme(facts: Mapping[str, str], scheme: str) -> list[Finding]:
    if facts.get("cluster_enabled") != "1" or scheme not in _SINGLE:
        return []
    text = "this is one node of a cluster, and the URL names a single server"
    return [error("server", text, "name it as redis+cluster://HOST:PORT,HOST:PORT")]


async def _look_at_nodes(link: Link, topology: Topology) -> list[Finding]:
    """Each primary of a cluster by itself."""
    facts: dict[str, dict[str, str]] = {}
    away: list[Finding] = []
    servers = await servers_of(link)
    for (host, port), server in zip(topology.primaries, servers, strict=True):
        node = f"{host}:{port}"
        try:
            facts[node] = await _facts(server)
        except StoreUnavailable as failure:
            text = f"a node does not answer, and its partitions wait: {failure}"
            away.append(error("node", text, f"start {node} again, or let a replica take over"))
    judged = {node: judge_server(said) for node, said in facts.items()}
    return [*judge_topology(topology), *away, *judge_coverage(facts), *merge(judged)]


async def _facts(link: Link) -> dict[str, str]:
    """What the server says of itself; settings that it keeps to itself are left out."""
    info = cast("bytes", await link.call("INFO")).decode("utf-8", "replace")
    parts = (line.partition(":") for line in info.splitlines() if ":" in line)
    facts = {name: value for name, _, value in parts}
    for answer in await link.calls([("CONFIG", "GET", name) for name in _SETTINGS]):
        if isinstance(answer, Exception):  # refused, or renamed as managed services do
            continue
        flat = [one.decode("utf-8", "replace") for one in cast("list[bytes]", answer)]
        facts |= {f"config:{name}": flat[2 * at + 1] for at, name in enumerate(flat[::2])}
    return facts
