"""``wherry scopes``: what the workers have in hand for their scopes, and all there is of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..broker.connect import Store
from ..broker.control import Deed, Order, Request, ask
from ..broker.leases import read_members
from ..broker.link import Link
from ..broker.namespaces import ScopeInfo, read_attempts, read_redis_ms, read_scope
from ..broker.scripts import fit_scripts
from ..broker.streams import read_partition_count
from ..broker.wire import Keys, check_scope_id
from ..errors import ConfigError
from ..model import AttemptsRow, ScopeId, id_key, partition_of
from .show import UNUSED
from .tables import facts, shorten, span, table, visible

Row = dict[str, Any]
_KEYS: dict[Order, tuple[str, ...]] = {
    Order.AGE: ("oldest_ms",),
    Order.WAITING: ("waiting", "deferred"),
    Order.ATTEMPTS: ("attempt",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scopes:
    """What the workers told of their scopes.

    Attributes:
        where: namespace and store.
        is_used: whether anybody has used the namespace.
        total: how many scopes they have an instance of, or messages in hand for.
        rows: the first of them, each with its ``worker``.
        silent: workers that did not answer in time.
    """

    where: str
    is_used: bool
    total: int
    rows: Sequence[Row]
    silent: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneScope:
    """All there is of one scope.

    Attributes:
        scope_id: whose.
        stored: what Redis holds.
        instance: what its worker told, None if it has nothing of it or is not there.
        has_answered: whether its worker did; True also if there is none.
        entry: id of its first unfinished entry, "" if there is none, or none was found.
        attempts: what is written of that entry's failures.
        now_ms: Redis' clock.
    """

    scope_id: str
    stored: ScopeInfo
    instance: Row | None
    has_answered: bool
    entry: str
    attempts: AttemptsRow | None
    now_ms: int


def choose_order(text: str) -> Order:
    """The order of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return Order(text)
    except ValueError:
        names = ", ".join(one.value for one in Order)
        raise ConfigError(f"--by {text}: order must be one of {names}") from None


def listing(
    store: Store, namespace: str, order: Order, count: int, within_s: float
) -> Callable[[Link], Awaitable[Scopes]]:
    """What asks all workers for their first scopes."""

    async def look(link: Link) -> Scopes:
        keys = Keys(namespace)
        workers = {one.worker_id for one in await read_members(link, keys)}
        request = Request(deed=Deed.SCOPES, order=order, count=count)
        answers = await ask(link, keys, request, workers, within_s) if workers else {}
        rows = [
            {"worker": worker, **row}
            for worker, answer in answers.items()
            for row in answer.get("scopes", ())
        ]
        rows.sort(key=lambda row: _rank(row, order), reverse=True)
        return Scopes(
            where=f"namespace {namespace} at {store.where}",
            is_used=bool(workers) or await read_partition_count(link, keys) is not None,
            total=sum(int(answer.get("total", 0)) for answer in answers.values()),
            rows=rows[:count],
            silent=sorted(workers - answers.keys()),
        )

    return look


def list_text(found: Scopes) -> str:
    """The scopes for people."""
    if not found.is_used:
        return f"{found.where}\n{UNUSED}"
    shown = f", {len(found.rows)} shown" if len(found.rows) < found.total else ""
    blocks = [f"{found.where}\nscopes in hand {found.total}{shown}"]
    if found.silent:
        blocks[0] += f"\nno answer in time from {', '.join(found.silent)}"
    if found.rows:
        titles = ["SCOPE", "STATE", "OLDEST", "WAITING", "ATTEMPT", "USED", "PART", "WORKER"]
        rows = [
            [
                shorten(visible(str(row["scope"])), 20),
                str(row["state"]),
                span(row["oldest_ms"] / 1000) if row["oldest_ms"] else "-",
                str(row["waiting"] + row["deferred"]),
                str(row.get("attempt", "-")),
                span(row["used_ms"] / 1000) if "used_ms" in row else "-",
                str(row["partition"]),
                shorten(str(row["worker"]), 14),
            ]
            for row in found.rows
        ]
        blocks.append(table(titles, rows, {0, 1, 7}))
    return "\n\n".join(blocks)


def list_data(found: Scopes) -> dict[str, object]:
    """The scopes for JSON."""
    return {"total": found.total, "scopes": list(found.rows), "silent": list(found.silent)}


def showing(
    store: Store, namespace: str, scope: str, within_s: float
) -> Callable[[Link], Awaitable[OneScope]]:
    """What looks for everything of one scope.

    Raises:
        MessageError: no scope can be called so.
    """
    scope_id = check_scope_id(scope)

    async def look(link: Link) -> OneScope:
        keys = Keys(namespace)
        count = await read_partition_count(link, keys)
        if count is None:
            raise ConfigError(
                f"nobody has used namespace {namespace!r} at {store.where} yet, so that there is "
                "no scope; check --namespace and --url"
            )
        scripts = await fit_scripts(link, memory=store.is_memory)
        partition = partition_of(scope_id, count)
        stored = await read_scope(link, scripts, keys, partition, scope_id)
        answer = await _ask_owner(link, keys, stored.owner, scope_id, within_s)
        instance: Row | None = (answer or {}).get("scope")
        entry = str((instance or {}).get("entry") or stored.first)
        return OneScope(
            scope_id=scope_id,
            stored=stored,
            instance=instance,
            has_answered=answer is not None or not stored.owner,
            entry=entry,
            attempts=await read_attempts(link, keys, partition, entry) if entry else None,
            now_ms=await read_redis_ms(link),
        )

    return look


def one_text(found: OneScope) -> str:
    """One scope for people."""
    stored = found.stored
    owner = "nobody"
    if stored.owner:
        owner = f"{stored.owner} (lease {stored.lease_ms / 1000:.1f} s)"
    return facts(
        [
            ("scope", found.scope_id),
            ("partition", str(stored.partition)),
            ("owner", owner),
            ("instance", _instance_text(found)),
            ("in hand", _in_hand_text(found.instance)),
            ("in stream", _in_stream_text(found.stored)),
            ("first", _entry_text(found)),
            ("last error", found.attempts.error if found.attempts else ""),
            ("replies", _kept(f"{stored.replies} kept", stored.replies, stored.replies_ttl_ms)),
            ("state", _state_text(stored)),
        ]
    )


def one_data(found: OneScope) -> dict[str, object]:
    """One scope for JSON."""
    stored, attempts = found.stored, found.attempts
    return {
        "scope": found.scope_id,
        "partition": stored.partition,
        "owner": stored.owner,
        "lease_ms": stored.lease_ms,
        "answered": found.has_answered,
        "instance": found.instance,
        "stream": {
            "waiting": stored.waiting,
            "first": stored.first,
            "looked_at": stored.looked_at,
            "backlog": stored.backlog,
        },
        "entry": found.entry,
        "age_ms": _age_ms(found),
        "attempts": None
        if attempts is None
        else {
            "failed": attempts.attempts,
            "not_before_ms": max(0, attempts.not_before_unix_ms - found.now_ms),
            "error": attempts.error,
            "crashes": attempts.crashes,
            "held": attempts.is_held,
        },
        "replies": {"kept": stored.replies, "ttl_ms": stored.replies_ttl_ms},
        "state": {
            "bytes": stored.state_bytes,
            "version": stored.state_version,
            "ttl_ms": stored.state_ttl_ms,
        },
    }


async def _ask_owner(
    link: Link, keys: Keys, owner: str, scope_id: ScopeId, within_s: float
) -> Row | None:
    if not owner:
        return None
    request = Request(deed=Deed.SCOPE, worker=owner, scope=scope_id)
    answers = await ask(link, keys, request, {owner}, within_s)
    return answers.get(owner)


def _rank(row: Row, order: Order) -> tuple[int, int]:
    first = sum(int(row.get(name, 0)) for name in _KEYS[order])
    return first, int(row.get("oldest_ms", 0))


def _instance_text(found: OneScope) -> str:
    row = found.instance
    if not found.has_answered:
        return "its owner did not answer in time"
    if row is None:
        return "absent"
    used = f", last used {span(row['used_ms'] / 1000)} ago" if "used_ms" in row else ""
    retry = f", tried again in {span(row['retry_in_ms'] / 1000)}" if "retry_in_ms" in row else ""
    return f"{row['state']}{used}{retry}"


def _in_hand_text(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['waiting']} wait in the inbox, {row['deferred']} are deferred"


def _in_stream_text(stored: ScopeInfo) -> str:
    if not stored.backlog:
        return "nothing in its partition"
    all_are = stored.looked_at >= stored.backlog
    seen = f"all {stored.backlog}" if all_are else f"the first {stored.looked_at}"
    more = "" if all_are else f" of {stored.backlog}"
    return f"{stored.waiting} unfinished, among {seen}{more} in its partition"


def _entry_text(found: OneScope) -> str:
    if not found.entry:
        return ""
    attempts = found.attempts
    text = f"{found.entry}, sent {span(_age_ms(found) / 1000)} ago"
    if attempts is None:
        return f"{text}, has not failed"
    text = f"{text}, failed {attempts.attempts} times"
    if attempts.crashes:
        text += f", may have killed {attempts.crashes} processes"
    if attempts.is_held:
        return f"{text}, holds its scope until it is retried or dropped"
    pause_s = (attempts.not_before_unix_ms - found.now_ms) / 1000
    return f"{text}, not before {span(pause_s)}" if pause_s > 0 else text


def _state_text(stored: ScopeInfo) -> str:
    if not stored.state_bytes:
        return "none"
    text = f"{stored.state_bytes} bytes, written by {stored.state_version}"
    return _kept(text, stored.state_bytes, stored.state_ttl_ms)


def _kept(text: str, size: int, ttl_ms: int) -> str:
    if not size:
        return "none"
    return f"{text}, for {span(ttl_ms / 1000)}" if ttl_ms >= 0 else f"{text}, for ever"


def _age_ms(found: OneScope) -> int:
    return max(0, found.now_ms - id_key(found.entry)[0]) if found.entry else 0
