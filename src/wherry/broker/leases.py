"""Leases and members: everything that says who lives and who owns what."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

from ..errors import StoreError, StoreUnavailable, WherryError
from ..model import EntryId, MemberInfo, Partition, Token
from .cluster import is_cluster
from .connect import CommandLink, Subscription
from .link import Argument, Command, Link
from .owners import find_owners
from .scripts import Script, Scripts, run_many
from .wire import PROTOCOL, Keys, Meta

NO_TOKEN = Token("")
NOBODY = "?"
"""Owns what nobody can claim, because its node of a cluster does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A partition that is ours now.

    Attributes:
        partition: its number.
        token: names this tenure; every write must show it.
        is_unclean: the last owner did not release it.
        is_again: and that not for the first time within ten minutes.
        last_id: newest entry of its stream when it was claimed, "0-0" if empty.
        previous: token of the last owner if it left uncleanly.
    """

    partition: Partition
    token: Token
    is_unclean: bool
    last_id: EntryId
    previous: Token = NO_TOKEN
    is_again: bool = False


class Standing(Enum):
    """How a worker stands among the members."""

    IN = "in"
    """It takes its share of the partitions."""
    OUT = "out"
    """It lives, but claims nothing; the others share without it."""
    ANEW = "anew"
    """In again, as one that has just joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a beat tells.

    Attributes:
        redis_ms: Redis' clock, unix milliseconds.
        members: workers that share the partitions -> when they joined, in that order.
        meta: of the namespace as it is now; another generation means that Redis lost its data.
        paused_unix_ms: since when the namespace is paused, 0 if it is not.
    """

    redis_ms: int
    members: dict[str, int]
    meta: Meta
    paused_unix_ms: int = 0


class Leases:
    """The lease scripts of one namespace on one link.

    Attributes:
        meta: what the namespace is taken for.
    """

    __slots__ = (
        "_keys",
        "_last",
        "_link",
        "_releases",
        "_releasing",
        "_scripts",
        "_ttl_ms",
        "_worker",
        "meta",
    )

    def __init__(
        self,
        link: CommandLink,
        scripts: Scripts,
        keys: Keys,
        *,
        worker_id: str,
        ttl_ms: int,
        meta: Meta,
    ) -> None:
        """Speak for one worker.

        Args:
            link: connection.
            scripts: fitted to the server.
            keys: of the namespace.
            worker_id: unique name of this process.
            ttl_ms: length of a lease.
            meta: of the namespace.
        """
        self._link = link
        self._scripts = scripts
        self._keys = keys
        self._worker = worker_id
        self._ttl_ms = ttl_ms
        self.meta = meta
        self._last: dict[Partition, tuple[str, int] | None] = {}
        self._releases: list[tuple[Command, asyncio.Future[object]]] = []
        self._releasing = asyncio.Lock()

    def is_request(self, channel: str) -> bool:
        """Whether what comes on a channel is asked by an operator; otherwise it is a hint."""
        return channel == self._keys.control

    def key_of(self, partition: Partition) -> str:
        """The key of a partition's lease."""
        return self._keys.lease(partition)

    async def claim(self, partitions: Sequence[Partition]) -> list[Claimed]:
        """Take those of the partitions that are free or whose lease ran out, in one write."""
        calls: list[tuple[Script, Command]] = []
        script = self._scripts.claim
        for partition in partitions:
            names = (self._keys.lease(partition), self._keys.entries(partition))
            nonce = secrets.token_hex(6)
            meta = self.meta
            about = (self._worker, nonce, self._ttl_ms, meta.generation, meta.partitions)
            calls.append((script, script.command(names, about)))
        taken: list[Claimed] = []
        for partition, answer in zip(partitions, await run_many(self._link, calls), strict=True):
            if isinstance(answer, StoreUnavailable) and is_cluster(self._link):
                continue  # its node is away, or its slot on the way to another; the others are not
            if isinstance(answer, Exception):
                raise answer
            if answer[0] == 1:
                _, token, is_unclean, last_id, previous = cast(
                    "tuple[int, bytes, int, bytes, bytes]", answer
                )
                taken.append(
                    Claimed(
                        partition=partition,
                        token=Token(token.decode()),
                        is_unclean=is_unclean > 0,
                        is_again=is_unclean == 2,
                        last_id=EntryId(last_id.decode()),
                        previous=Token(previous.decode()),
                    )
                )
        return taken

    async def release(self, partition: Partition, token: Token) -> bool:
        """Free a partition and announce it; False if it was no longer ours.

        Those that are asked for at one time share a write: a worker that stops would open a
        connection for each of them otherwise.
        """
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        script = self._scripts.release
        about = (token, self._keys.released, partition)
        command = script.command((self._keys.lease(partition),), about)
        self._releases.append((command, answer))
        async with self._releasing:
            if not answer.done():
                await self._release()
        found = await answer
        if isinstance(found, WherryError):
            raise found
        return found == 1

    async def _release(self) -> None:
        asked, self._releases = self._releases, []
        script = self._scripts.release
        try:
            answers = await run_many(self._link, [(script, command) for command, _ in asked])
        except WherryError as error:
            answers = [error] * len(asked)
        except asyncio.CancelledError:
            for _, answer in asked:
                answer.cancel()
            raise
        for (_, answer), found in zip(asked, answers, strict=True):
            if not answer.done():
                answer.set_result(found)

    async def survey(
        self, held: Container[Partition] = ()
    ) -> dict[Partition, tuple[str, int] | None]:
        """See `find_owners`; of every partition.

        In a cluster, where each is asked for by itself, those held are not: their renewal tells.
        Where its node is away a partition is still its last owner's: or its share would look too
        large to everybody else, and be handed on.
        """
        partitions = [Partition(number) for number in range(self.meta.partitions)]
        found: dict[Partition, tuple[str, int] | None] = {}
        if is_cluster(self._link):
            found = {one: (self._worker, self._ttl_ms) for one in partitions if one in held}
            partitions = [one for one in partitions if one not in found]
        owners = await find_owners(self._link, self._scripts.survey, self._keys, partitions)
        for partition, owner in zip(partitions, owners, strict=True):
            if isinstance(owner, StoreUnavailable):
                last = self._last.get(partition)
                found[partition] = (last[0] if last and last[0] else NOBODY, self._ttl_ms)
            else:
                found[partition] = owner
        self._last = found
        return found

    async def beat(
        self, fields: Mapping[str, str], silence_ms: int, standing: Standing = Standing.IN
    ) -> Beat:
        """Say that this worker lives; writes the meta hash again if it has vanished.

        Args:
            fields: what it says of itself.
            silence_ms: members silent for longer are forgotten.
            standing: whether it shares; going out is announced.
        """
        flat: list[Argument] = [part for pair in fields.items() for part in pair]
        answer = await self._scripts.beat.run(
            self._link,
            (
                *(self._keys.members, self._keys.joined),
                *(self._keys.member(self._worker), self._keys.meta),
            ),
            (
                *(self._worker, silence_ms),
                *(PROTOCOL, self.meta.partitions, secrets.token_hex(8)),
                *(standing.value, self._keys.released),
                *flat,
            ),
        )
        now, members, generation, partitions, paused = cast(
            "tuple[bytes, list[bytes], bytes, bytes | None, bytes | None]", answer
        )
        return Beat(
            redis_ms=int(now),
            members={
                one.decode(): int(float(joined))
                for one, joined in zip(members[::2], members[1::2], strict=True)
            },
            meta=Meta(
                partitions=int(partitions or self.meta.partitions), generation=generation.decode()
            ),
            paused_unix_ms=read_pause(paused),
        )

    async def attempts(self, partitions: Sequence[Partition]) -> list[dict[EntryId, bytes] | None]:
        """Rows of the entries that failed before, for each partition.

        An empty dict also where the key is of another type: the next commit is refused for that.
        None where the node of a cluster is away.

        Raises:
            StoreUnavailable: the connection broke, or Redis cannot serve one of the partitions.
            StoreRefused: this user may not read the rows.
        """
        rows: list[dict[EntryId, bytes] | None] = []
        answers = await self._link.calls(
            [("HGETALL", self._keys.attempts(partition)) for partition in partitions]
        )
        for answer in answers:
            if isinstance(answer, StoreUnavailable) and is_cluster(self._link):
                rows.append(None)
                continue
            if isinstance(answer, Exception) and not isinstance(answer, StoreError):
                raise answer
            flat = [] if isinstance(answer, StoreError) else cast("list[bytes]", answer)
            rows.append({EntryId(flat[i].decode()): flat[i + 1] for i in range(0, len(flat), 2)})
        return rows

    async def rows(self, partition: Partition, entry_ids: Sequence[EntryId]) -> list[bytes | None]:
        """Rows of single entries of a partition, None where there is none."""
        answer = await self._link.call("HMGET", self._keys.attempts(partition), *entry_ids)
        return cast("list[bytes | None]", answer)

    async def listen(self) -> Subscription:
        """Subscribe to what is released and who leaves, and to what operators ask."""
        return await self._link.subscribe(self._keys.released, self._keys.control)

    async def leave(self) -> None:
        """Say that this worker is gone, so that the others share its part at once."""
        answers = await self._link.calls(
            [
                ("ZREM", self._keys.members, self._worker),
                ("ZREM", self._keys.joined, self._worker),
                ("DEL", self._keys.member(self._worker)),
                ("PUBLISH", self._keys.released, "left"),
            ]
        )
        for answer in answers[:-1]:  # where PUBLISH is forbidden, the others notice by themselves
            if isinstance(answer, Exception):
                raise answer


def read_pause(paused: bytes | None) -> int:
    """Since when; 1 for what is no number, by which whoever wrote it by hand wants to pause."""
    return (int(paused) if paused.isdigit() else 1) if paused else 0


async def read_members(link: Link, keys: Keys) -> list[MemberInfo]:
    """All members, those that share in order of joining, with what each says of itself."""
    sharing, living = cast(
        "tuple[list[bytes], list[bytes]]",
        await link.calls([("ZRANGE", key, 0, 9999) for key in (keys.joined, keys.members)]),
    )
    for answer in (sharing, living):
        if isinstance(answer, Exception):
            raise answer
    ids = [*sharing, *(one for one in living if one not in set(sharing))]
    answers = await link.calls([("HGETALL", keys.member(one.decode())) for one in ids])
    members: list[MemberInfo] = []
    for worker_id, answer in zip(ids, answers, strict=True):
        if isinstance(answer, Exception):
            raise answer
        flat = [part.decode("utf-8", "replace") for part in cast("list[bytes]", answer)]
        if flat:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            members.append(MemberInfo(worker_id=worker_id.decode(), fields=fields))
    return members
