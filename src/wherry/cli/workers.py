"""``wherry workers``: what each worker says of itself, and asking one of them to end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..broker.connect import Store
from ..broker.control import Deed, Request, ask
from ..broker.leases import read_members
from ..broker.link import Link
from ..broker.namespaces import is_member
from ..broker.wire import Keys
from ..errors import ConfigError, WorkerSilent
from ..model import MemberInfo
from .show import Status, head, held, number, state_of
from .tables import shorten, span, table

ANSWER_WITHIN_S = 5.0
_LOOK_S = 0.2

_NUMBERS = (
    *("pid", "started", "up_ms", "partitions", "avoided", "can_claim", "in_flight"),
    *("instances", "busy", "done", "retried", "dead", "expired", "replies"),
    *("last_ms", "last_done", "last_retried", "last_dead", "last_expired", "last_replies"),
)
_MEASURED = ("queueing_p50_us", "queueing_p99_us", "handling_p50_us", "handling_p99_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a worker that was asked to end.

    Attributes:
        worker: its id.
        deed: what was asked.
        took_s: how long it took to leave, None if that was not waited for.
    """

    worker: str
    deed: Deed
    took_s: float | None


def as_table(status: Status) -> str:
    """All workers for people."""
    if not status.members:
        return head(status)
    titles = ["WORKER", "STATE", "PARTS", "FLIGHT", "BUSY", "DONE/S", "FAILED", "UP"]
    rows = [
        [
            shorten(one.worker_id, 24),
            state_of(one),
            str(held(status, one)),
            str(number(one, "in_flight")),
            str(number(one, "busy")),
            f"{rate_of(one):.0f}",
            str(number(one, "retried") + number(one, "dead")),
            span(number(one, "up_ms") / 1000),
        ]
        for one in status.members
    ]
    return f"{head(status)}\n\n{table(titles, rows, {0, 1})}"


def as_data(status: Status) -> list[dict[str, object]]:
    """All workers for JSON; numbers are numbers."""
    return [
        {
            "worker": one.worker_id,
            "state": state_of(one),
            "host": one.fields.get("host", ""),
            "version": one.fields.get("version", ""),
            "owned": held(status, one),
            **{name: number(one, name) for name in _NUMBERS},
            **{name: measured(one, name) for name in _MEASURED},
            "done_per_s": round(rate_of(one), 1),
        }
        for one in status.members
    ]


def rate_of(member: MemberInfo) -> float:
    """Messages per second that a worker finished between its last two beats."""
    length_ms = number(member, "last_ms")
    return number(member, "last_done") * 1000 / length_ms if length_ms else 0.0


def measured(member: MemberInfo, field: str) -> int | None:
    """What a worker measured between its last two beats; None if nothing came, or it does not."""
    return number(member, field) if member.fields.get(field) else None


async def end(store: Store, namespace: str, name: str, deed: Deed, wait_s: float) -> Ended:
    """Ask a worker to end and wait until it has left the fleet.

    Args:
        store: where it works.
        namespace: in what.
        name: its id, or a part that no other has.
        deed: `Deed.DRAIN` or `Deed.STOP`.
        wait_s: how long to wait, 0 not at all.

    Raises:
        ConfigError: no worker is called so, or several are.
        WorkerSilent: it does not answer, or has not left in time.
        WherryError: as `Link.call` says.
    """
    keys, link = Keys(namespace), store.link()
    loop = asyncio.get_running_loop()
    try:
        worker = _choose(name, await read_members(link, keys), namespace)
        began_s = loop.time()
        answers = await ask(
            link, keys, Request(deed=deed, worker=worker), {worker}, ANSWER_WITHIN_S
        )
        if not answers and await is_member(link, keys, worker):
            raise WorkerSilent(
                f"worker {worker} did not answer within {ANSWER_WITHIN_S:g} s; if it hangs, end "
                "its process: what it has in hand is not lost"
            )
        if not wait_s:
            return Ended(worker=worker, deed=deed, took_s=None)
        await _wait_until_gone(link, keys, worker, wait_s)
        return Ended(worker=worker, deed=deed, took_s=loop.time() - began_s)
    finally:
        await link.aclose()


def end_text(ended: Ended) -> str:
    """What became of it, for people."""
    done = {Deed.DRAIN: "drains", Deed.STOP: "hands back at once"}[ended.deed]
    if ended.took_s is None:
        return f"worker {ended.worker} {done}"
    return (
        f"worker {ended.worker} has left after {ended.took_s:.1f} s; "
        "its partitions are free for the others"
    )


def end_data(ended: Ended) -> dict[str, object]:
    """What became of it, for JSON."""
    took_ms = None if ended.took_s is None else int(ended.took_s * 1000)
    return {"worker": ended.worker, "asked": ended.deed.value, "left_after_ms": took_ms}


def _choose(name: str, members: Sequence[MemberInfo], namespace: str) -> str:
    known = [one.worker_id for one in members]
    found = [name] if name in known else [one for one in known if name in one]
    if len(found) == 1 and name:
        return found[0]
    if found:
        raise ConfigError(f"several workers are called {name!r}: {', '.join(found)}; say more")
    listed = f"there are {', '.join(known)}" if known else "there is none at all"
    raise ConfigError(
        f"no worker of namespace {namespace!r} is called {name!r}; {listed}; "
        "wherry workers ls shows them"
    )


async def _wait_until_gone(link: Link, keys: Keys, worker: str, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            while await is_member(link, keys, worker):  # noqa: ASYNC110 - another process's event
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise WorkerSilent(
            f"worker {worker} was asked and has not left within {wait_s:g} s; it still finishes "
            "what had begun: wait longer, or wherry workers stop hands back at once"
        ) from None
