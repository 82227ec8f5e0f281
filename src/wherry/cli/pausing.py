"""``wherry pause`` and ``resume``: set the flag, and wait until the workers say so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..broker.connect import Store
from ..broker.leases import read_members
from ..broker.link import Link
from ..broker.namespaces import set_pause
from ..broker.streams import read_partition_count
from ..broker.wire import Keys
from ..errors import ConfigError, WorkerSilent
from ..model import MemberInfo
from .show import number, state_of

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A namespace that was paused, or goes on.

    Attributes:
        namespace: its name.
        is_paused: which of both.
        is_news: whether it was not so before.
        members: its workers, all of whom know.
    """

    namespace: str
    is_paused: bool
    is_news: bool
    members: Sequence[MemberInfo]

    @property
    def busy(self) -> int:
        """How many instances still handle a message."""
        return sum(number(one, "busy") for one in self.members)


async def pause(
    store: Store, namespace: str, *, paused: bool, within_s: float, until_idle: bool = False
) -> Paused:
    """Pause a namespace or let it go on, and wait until every living worker says so.

    Args:
        store: where it is.
        namespace: which.
        paused: what it is to be.
        within_s: how long to wait for the workers.
        until_idle: wait also until nothing is being handled any more.

    Raises:
        ConfigError: nobody has used the namespace yet.
        WorkerSilent: not all workers have said so in time; the flag is set all the same.
        WherryError: as `Link.call` says.
    """
    keys, link = Keys(namespace), store.link()
    try:
        if await read_partition_count(link, keys) is None:
            raise ConfigError(
                f"nobody has used namespace {namespace!r} at {store.where} yet, so that there is "
                "nothing to pause; check --namespace and --url"
            )
        is_news = await set_pause(link, keys, paused=paused)
        members = await _wait_for_workers(link, keys, paused, within_s, until_idle=until_idle)
        return Paused(namespace=namespace, is_paused=paused, is_news=is_news, members=members)
    finally:
        await link.aclose()


def as_text(found: Paused) -> str:
    """What was done, for people."""
    workers = f"{len(found.members)} worker{'' if len(found.members) == 1 else 's'}"
    if not found.is_paused:
        state = "goes on" if found.is_news else "was not paused"
        return f"namespace {found.namespace} {state}: {workers}"
    state = "is paused" if found.is_news else "was paused already"
    still = f"; still handled, as they had begun: {found.busy}" if found.busy else ""
    return f"namespace {found.namespace} {state}: {workers} begin nothing more{still}"


def as_data(found: Paused) -> dict[str, object]:
    """What was done, for JSON."""
    return {
        "namespace": found.namespace,
        "paused": found.is_paused,
        "changed": found.is_news,
        "workers": [one.worker_id for one in found.members],
        "busy": found.busy,
    }


async def _wait_for_workers(
    link: Link, keys: Keys, paused: bool, within_s: float, *, until_idle: bool
) -> Sequence[MemberInfo]:
    members: Sequence[MemberInfo] = ()
    try:
        async with asyncio.timeout(within_s):
            while True:
                members = await read_members(link, keys)
                waiting = any(number(one, "busy") for one in members) and until_idle
                if not waiting and all(_has_heard(one, paused=paused) for one in members):
                    return members
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        silent = [one.worker_id for one in members if not _has_heard(one, paused=paused)]
        what = "paused" if paused else "resumed"
        if not silent:
            busy = sum(number(one, "busy") for one in members)
            raise WorkerSilent(
                f"the namespace is paused, but after {within_s:g} s {busy} of what had begun is "
                "still handled; wait longer, or look at it with wherry scopes ls"
            ) from None
        raise WorkerSilent(
            f"the namespace is {what}, but within {within_s:g} s these workers did not say so: "
            f"{', '.join(silent)}; they read it at their next beat, unless they hang or are of an "
            "older release"
        ) from None


def _has_heard(member: MemberInfo, *, paused: bool) -> bool:
    """A worker that drains begins nothing, paused or not."""
    state = state_of(member)
    return state == "draining" or (state == "paused") == paused
