"""Reading and appending: input streams, reply streams, states, the namespace's meta hash."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ..config import DEFAULT_PARTITIONS
from ..errors import (
    StoreError,
    StoreIncompatible,
    StoreRefused,
    StoreUnavailable,
    WherryError,
)
from ..model import Outgoing, Partition, PartitionInfo, ScopeId, id_key
from .cluster import is_cluster, node_name, servers_of
from .link import Argument, Command, Link
from .owners import find_owners
from .scripts import Script, Scripts, run_many
from .spanning import run_over
from .wire import PROTOCOL, Keys, Meta, outgoing_fields

RawEntry = tuple[bytes, list[bytes]]
"""Id and flat field list of a stream entry."""


async def read_streams(
    link: Link,
    cursors: Mapping[str, str],
    *,
    count: int,
    block_ms: int | None,
    before: Sequence[Command] = (),
) -> dict[str, list[RawEntry]]:
    """XREAD: entries behind each cursor, by key; empty if none came within ``block_ms``.

    Args:
        link: connection; a cancelled read closes it.
        cursors: key -> last id seen.
        count: entries for each stream.
        block_ms: None does not wait.
        before: commands that go first in the same write; their answers are not looked at.
    """
    block: tuple[Argument, ...] = () if block_ms is None else ("BLOCK", block_ms)
    read = ("XREAD", "COUNT", count, *block, "STREAMS", *cursors.keys(), *cursors.values())
    if before:
        answer = (await link.calls([*before, read]))[-1]
        if isinstance(answer, Exception):
            raise answer
    else:
        answer = await link.call(*read)
    if isinstance(answer, dict):  # of RESP3; in RESP2 they are pairs
        answer = cast("dict[bytes, list[RawEntry]]", answer).items()
    streams = cast("Iterable[tuple[bytes, list[RawEntry]]]", answer or ())
    return {key.decode(): entries for key, entries in streams}


async def fetch_entries(link: Link, key: str, entry_ids: Sequence[str]) -> list[RawEntry | None]:
    """Entries by id, None where there is none."""
    answers = await link.calls([("XRANGE", key, one, one) for one in entry_ids])
    found: list[RawEntry | None] = []
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        found.append(cast("list[RawEntry]", answer)[0] if answer else None)
    return found


async def load_states(
    link: Link, keys: Keys, scopes: Sequence[tuple[Partition, ScopeId]]
) -> list[tuple[bytes, str] | StoreError | StoreUnavailable]:
    """Packed state and version of each scope in one round trip; b"" and "" where none is kept.

    A key of the wrong type gives an error in its place, and so does a node of a cluster that is
    away.
    """
    answers = await link.calls(
        [("HMGET", keys.state(partition, scope), "state", "v") for partition, scope in scopes]
    )
    loaded: list[tuple[bytes, str] | StoreError | StoreUnavailable] = []
    for answer in answers:
        if isinstance(answer, StoreError) or (
            isinstance(answer, StoreUnavailable) and is_cluster(link)
        ):
            loaded.append(answer)
        elif isinstance(answer, Exception):
            raise answer
        else:
            packed, version = cast("list[bytes | None]", answer)
            loaded.append((packed or b"", (version or b"").decode()))
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTerms:
    """How entries are appended.

    Attributes:
        backlog: most unfinished entries a partition may hold.
        dedup_ttl_ms: how long a message id is remembered.
        replicas: how many are waited for; 0 waits for none.
        replicas_timeout_ms: longest wait for them.
    """

    backlog: int
    dedup_ttl_ms: int
    replicas: int = 0
    replicas_timeout_ms: int = 0


async def send_entries(
    link: Link,
    script: Script,
    keys: Keys,
    batches: Mapping[Partition, Sequence[Outgoing]],
    terms: SendTerms,
) -> tuple[dict[Partition, list[str] | WherryError], int | WherryError]:
    """Append entries to several partitions in one write.

    Args:
        link: connection.
        script: ``send.lua``.
        keys: of the namespace.
        batches: what goes to each partition, in order.
        terms: how.

    Returns:
        For each partition the ids: "" for what its bound refused, and "=" before the id of what
        was sent before; or the error that it answered, and then nothing was appended to it.
        And how many replicas have all of it, 0 if none were waited for; or why nobody knows.

    Raises:
        StoreUnavailable: the connection broke; any of them may have been appended.
    """
    calls: list[tuple[Script, Command]] = []
    last: list[Command] = []
    for partition, entries in batches.items():
        names, arguments = _pack_batch(keys, partition, entries, terms)
        calls.append((script, script.command(names, arguments)))
        if terms.replicas:
            last += [("PEXPIRE", name, terms.dedup_ttl_ms) for name in names[1:]]
    if terms.replicas:
        # It waits for the last write of its own connection. What was sent before, over another
        # one perhaps, is none; prolonging its message id is, and comes after it.
        last.append(("WAIT", terms.replicas, terms.replicas_timeout_ms))
    answers = await run_many(link, calls, last)
    results: dict[Partition, list[str] | WherryError] = {
        partition: answer
        if isinstance(answer, WherryError)
        else [entry_id.decode() for entry_id in cast("list[bytes]", answer)]
        for partition, answer in zip(batches, answers[: len(calls)], strict=True)
    }
    return results, answers[-1] if terms.replicas else 0


def _pack_batch(
    keys: Keys, partition: Partition, entries: Sequence[Outgoing], terms: SendTerms
) -> tuple[list[str], list[Argument]]:
    """Keys and arguments of ``send.lua``."""
    names = [keys.entries(partition)]
    arguments: list[Argument] = [terms.backlog, terms.dedup_ttl_ms]
    for entry in entries:
        if entry.message_id:
            names.append(keys.sent(partition, entry.message_id))
        # One argument for all names: packing arguments is most of a producer's work.
        fields = outgoing_fields(entry)
        arguments.append("".join(cast("list[str]", fields[::2])))
        arguments += fields[1::2]
    return names, arguments


async def open_namespace(link: Link, keys: Keys, wanted: int | None) -> Meta:
    """Read the namespace's meta hash; whoever comes first writes it.

    Args:
        link: connection.
        keys: of the namespace.
        wanted: a partition count that was set explicitly, or None to adopt what is there.

    Raises:
        StoreIncompatible: another protocol, or another count in a namespace that is in use.
    """
    meta = await _read_meta(link, keys, wanted or DEFAULT_PARTITIONS)
    if wanted is None or meta.partitions == wanted:
        return meta
    in_use = await _find_data(link, keys.namespace)
    if in_use:
        raise StoreIncompatible(
            f"namespace {keys.namespace!r} has {meta.partitions} partitions and is in use "
            f"(key {in_use}), but {wanted} were asked for; leave the count unset to adopt "
            f"{meta.partitions}, or choose another namespace"
        )
    await link.call("DEL", keys.meta)
    return await _read_meta(link, keys, wanted)


async def read_partition_count(link: Link, keys: Keys) -> int | None:
    """The namespace's partition count; None while there is no such namespace."""
    count = cast("bytes | None", await link.call("HGET", keys.meta, "partitions"))
    return None if count is None else int(count)


async def check_eviction(link: Link) -> None:
    """Refuse a server that may drop keys when its memory is full.

    Raises:
        StoreIncompatible: it has a memory limit and evicts; where INFO is forbidden nothing is
            known and nothing is said.
    """
    for server in await servers_of(link):
        try:
            info = cast("bytes", await server.call("INFO", "memory"))
        except (StoreError, StoreRefused):
            continue
        except StoreUnavailable:
            if not is_cluster(link):
                raise
            continue  # a node that is away keeps nobody from the others
        _check_policy(_read_info(info))


def _check_policy(fields: Mapping[bytes, bytes]) -> None:
    policy = fields.get(b"maxmemory_policy", b"noeviction").decode()
    if policy != "noeviction" and fields.get(b"maxmemory", b"0") != b"0":
        raise StoreIncompatible(
            f"this Redis evicts keys when its memory is full (maxmemory-policy {policy}), and "
            "would drop messages and leases; run CONFIG SET maxmemory-policy noeviction"
        )


async def _read_meta(link: Link, keys: Keys, partitions: int) -> Meta:
    fields = {
        "protocol_min": PROTOCOL,
        "protocol_max": PROTOCOL,
        "partitions": partitions,
        "generation": secrets.token_hex(8),
    }
    found = cast("list[bytes | None]", await link.call("HMGET", keys.meta, *fields))
    if None in found:  # who only reads has no right to write it
        answers = await link.calls(
            [("HSETNX", keys.meta, name, value) for name, value in fields.items()]
            + [("HMGET", keys.meta, *fields)]
        )
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        found = answers[-1]
    low, high, count, generation = (value.decode() for value in cast("list[bytes]", found))
    if not int(low) <= PROTOCOL <= int(high):
        raise StoreIncompatible(
            f"namespace {keys.namespace!r} speaks protocol {low} to {high}, this release speaks "
            f"{PROTOCOL}; run the release that wrote it, or choose another namespace"
        )
    return Meta(partitions=int(count), generation=generation)


async def _find_data(link: Link, namespace: str) -> str:
    """A key that shows that the namespace is in use, or ""; released leases do not count."""
    for server in await servers_of(link):
        cursor = b""
        while cursor != b"0":
            cursor, names = cast(
                "tuple[bytes, list[bytes]]",
                await server.call(
                    "SCAN", cursor or b"0", "MATCH", f"{{{namespace}:*}}:*", "COUNT", 1000
                ),
            )
            for name in names:
                if not name.endswith(b"}:lease") or await link.call("HGET", name, "owner"):
                    return name.decode("utf-8", "replace")
    return ""


async def read_partitions(
    link: Link, scripts: Scripts, keys: Keys, partitions: Sequence[Partition]
) -> list[PartitionInfo]:
    """Owner, backlog and dead letters of each partition; only numbers travel.

    Where the node of a cluster is away, that is said instead.
    """
    owners = await find_owners(link, scripts.survey, keys, partitions)
    names = [keys.entries(one) for one in partitions]
    waiting = await run_over(link, scripts.backlog, names, 3)
    sizes = await link.calls([("XLEN", keys.dead(one)) for one in partitions])
    infos: list[PartitionInfo] = []

    def node_of(partition: Partition) -> str:
        return node_name(link, keys.entries(partition))

    for partition, owner, part, dead in zip(partitions, owners, waiting, sizes, strict=True):
        if isinstance(dead, Exception) and not (
            isinstance(dead, StoreUnavailable) and is_cluster(link)
        ):
            raise dead
        if isinstance(owner, Exception) or isinstance(part, Exception) or not isinstance(dead, int):
            infos.append(PartitionInfo(partition=partition, node=node_of(partition), is_away=True))
            continue
        name, left_ms = owner or ("", 0)
        now, backlog, first = part
        infos.append(
            PartitionInfo(
                partition=partition,
                node=node_of(partition),
                owner=name if left_ms > 0 else "",
                lease_ms=max(0, left_ms),
                backlog=backlog,
                dead=dead,
                oldest_ms=max(0, int(now) - id_key(first.decode())[0]) if first else 0,
            )
        )
    return infos


def _read_info(info: bytes) -> dict[bytes, bytes]:
    """The fields of an INFO answer."""
    pairs = (line.partition(b":") for line in info.splitlines())
    return {name: value for name, _, value in pairs}
