"""The namespace: its protocol and size, who works on it, and what waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..broker.connect import Store
from ..broker.leases import read_members
from ..broker.link import Link
from ..broker.owners import read_owners
from ..broker.scripts import fit_scripts
from ..broker.wire import PROTOCOL, Keys
from ..config import Config
from ..errors import StoreUnavailable, WherryError
from ..model import MemberInfo, Partition
from .finding import Finding, error, note, ok, warning

_NEARLY_FULL = 0.8
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the partitions hold.

    Attributes:
        backlog: unfinished entries of each partition.
        dead: dead letters of each.
        failing: entries of each that have failed.
        owned: whether each has a live owner; None where its lease is none.
        broken: keys of another type than they must be.
    """

    backlog: Sequence[int]
    dead: Sequence[int]
    failing: Sequence[int]
    owned: Sequence[bool | None]
    broken: Sequence[str]


async def examine_namespace(
    store: Store, link: Link, config: Config, meta: Mapping[str, str]
) -> list[Finding]:
    """Look at a namespace.

    Args:
        store: where it is.
        link: for short commands.
        config: with the namespace, the bound of the backlog and the partition count, if it is set.
        meta: its meta hash, empty if it has none.

    Raises:
        WherryError: Redis does not answer, or refuses to.
    """
    if not meta:
        text = f"nobody has used {config.namespace} yet: no partitions, no workers"
        return [note("namespace", text)]
    findings = list(_judge_meta(meta, config))
    if any(one.remedy for one in findings):
        return findings
    keys, count = Keys(config.namespace), int(meta["partitions"])
    members = await read_members(link, keys)
    sizes = await _measure(store, link, keys, count)
    if meta.get("paused"):
        text = f"{config.namespace} is paused: messages are taken and none is handled"
        findings.append(warning("paused", text, "wherry resume, when what it waits for is done"))
    return [*findings, *_judge_sizes(sizes, config), *_judge_fleet(members, sizes)]


def _judge_meta(meta: Mapping[str, str], config: Config) -> Iterator[Finding]:
    name = config.namespace
    low, high, count = (meta.get(one, "") for one in ("protocol_min", "protocol_max", "partitions"))
    if not (low.isdecimal() and high.isdecimal() and count.isdecimal() and int(count)):
        yield error(
            "namespace",
            f"the meta hash of {name} is damaged: {dict(meta)}",
            "write back what it had (docs/protocol.md), or purge the namespace",
        )
    elif not int(low) <= PROTOCOL <= int(high):
        yield error(
            "protocol",
            f"{name} speaks protocol {low} to {high}, this release speaks {PROTOCOL}",
            "run the release that wrote it, or choose another namespace",
        )
    elif config.partitions not in (None, int(count)):
        yield error(
            "partitions",
            f"{name} has {count} and the settings say {config.partitions}: workers and clients end "
            "with exit code 7",
            f"leave partitions unset to adopt {count}, or choose another namespace",
        )
    else:
        yield ok("namespace", f"{name}, protocol {PROTOCOL}, {count} partitions")


async def _measure(store: Store, link: Link, keys: Keys, count: int) -> Sizes:
    partitions = [Partition(number) for number in range(count)]
    names = [
        [(command, name(one)) for one in partitions]
        for command, name in (("XLEN", keys.entries), ("XLEN", keys.dead), ("HLEN", keys.attempts))
    ]
    answers = await link.calls([one for kind in names for one in kind])
    for answer in answers:
        if isinstance(answer, WherryError) and not _is_wrong_type(answer):
            raise answer
    scripts = await fit_scripts(link, memory=store.is_memory)
    leases = await read_owners(link, scripts.survey, keys, partitions)
    wrong = [
        key
        for (_, key), answer in zip([one for kind in names for one in kind], answers, strict=True)
        if isinstance(answer, WherryError)
    ]
    wrong += [
        keys.lease(one) for one, lease in zip(partitions, leases, strict=True) if lease is None
    ]
    backlog, dead, failing = (
        [one if isinstance(one, int) else 0 for one in answers[place * count : (place + 1) * count]]
        for place in range(3)
    )
    return Sizes(
        backlog=backlog,
        dead=dead,
        failing=failing,
        owned=[None if one is None else bool(one[0]) and one[1] > 0 for one in leases],
        broken=wrong,
    )


def _is_wrong_type(answer: Any) -> bool:
    return not isinstance(answer, StoreUnavailable) and "WRONGTYPE" in str(answer)


def _judge_sizes(sizes: Sizes, config: Config) -> Iterator[Finding]:
    if sizes.broken:
        yield error(
            "keys",
            f"overwritten by something else: {_some(sizes.broken)}",
            "find out who writes there, then delete them; what they held is lost",
        )
    full = [str(one) for one, size in enumerate(sizes.backlog) if size >= config.backlog]
    most = max(sizes.backlog)
    text = (
        f"{sum(sizes.backlog)} unfinished, at most {most} in a partition (bound {config.backlog})"
    )
    remedy = "start more workers, or make handlers quicker"
    if full:
        yield error("backlog", f"{text}; producers are refused in partition {_some(full)}", remedy)
    elif most >= _NEARLY_FULL * config.backlog:
        yield warning("backlog", text, remedy)
    else:
        yield ok("backlog", text)
    if failing := sum(sizes.failing):
        yield note("failing", f"{failing} unfinished messages have failed before, or are held")
    if dead := sum(sizes.dead):
        yield warning(
            "dead",
            f"{dead} dead letters wait for somebody to look at them",
            "wherry dlq ls, then replay or drop them",
        )
    else:
        yield ok("dead", "no dead letters")


def _judge_fleet(members: Sequence[MemberInfo], sizes: Sizes) -> Iterator[Finding]:
    free = [str(number) for number, is_owned in enumerate(sizes.owned) if is_owned is False]
    count = len(sizes.owned)
    if not members:
        waiting = sum(sizes.backlog)
        text = f"no workers, and {waiting} messages wait"
        if waiting:
            yield warning("workers", text, "start some: wherry run MODULE:ATTRIBUTE")
        else:
            yield note("workers", "no workers")
        return
    unable = [one.worker_id for one in members if one.fields.get("can_claim") == "0"]
    text = f"{len(members)}, owning {count - len(free)} of {count} partitions"
    if unable:
        yield warning(
            "workers",
            f"{text}; not answered by Redis: {_some(unable)}",
            "look at their logs and at the network between them and Redis",
        )
    elif free:
        yield warning(
            "workers",
            f"{text}; nobody owns {_some(free)}",
            "if that lasts longer than a lease: look at their logs for `a partition has no worker`",
        )
    elif len(members) > count:
        yield note("workers", f"{text}; {len(members) - count} have nothing to do")
    else:
        yield ok("workers", text)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
