"""The checker: compares replies, states, dead letters and keys with what was sent and seen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from wherry.broker.link import Link
from wherry.broker.streams import RawEntry
from wherry.broker.wire import Keys, read_reply, unpack
from wherry.model import Partition, Reply, Restarted, ScopeId, partition_of

from .answers import MAX_ATTEMPTS, Probes, ScopeCheck, died_of
from .findings import Findings
from .following import Follower, LiveReader, print_of
from .journal import Journal, Sent

LASTING = re.compile(r"\{chaos\}:meta|\{chaos:\d+\}:(in|lease|dead|scope:.+)")
TEMPORARY = re.compile(r"\{chaos:\d+\}:(out:[^~].*|sent:.+)|\{chaos\}:answer:[0-9a-f]+")
"""Keys that may be there when all workers and clients have gone; these expire."""

PAGE = 1_000


class Checker:
    """Checks one finished round: nobody writes any more."""

    def __init__(
        self, link: Link, journal: Journal, probes: Probes, servers: Sequence[Link] = ()
    ) -> None:
        """Look over a link; at keys over one to each server, if there are several."""
        self._link = link
        self._servers = servers or (link,)
        self._probes = probes
        self._keys = Keys("chaos")
        self._journal = journal
        self._partitions = 0
        self._findings = Findings()

    async def check(
        self,
        live: LiveReader,
        followers: Mapping[str, Follower],
        asked: Mapping[str, Sequence[object]],
    ) -> Findings:
        """Compare everything.

        Args:
            live: saw the replies of all scopes.
            followers: saw those of some.
            asked: scope -> answers to the requests it was sent.
        """
        self._partitions = int(await self._link.call("HGET", self._keys.meta, "partitions"))
        buried: list[tuple[str, str]] = []
        for name, seen in live.seen.items():
            raw = await self._read(self._keys.replies(partition_of(name, self._partitions), name))
            replies = [read_reply(*entry) for entry in raw]
            effects = ScopeCheck(self._findings, self._journal, self._probes, name).check(replies)
            buried += [(name, entry_id) for entry_id in effects.buried]
            await self._check_state(name, effects.done)
            self._check_seen(name, seen, raw, replies)
            if name in followers:
                self._check_follower(name, followers[name], replies)
        for name, answers in asked.items():
            await self._check_asked(name, answers)
        await self._check_letters(buried)
        await self._check_keys()
        figures = self._findings.figures
        figures["accepted"] = self._journal.accepted
        figures["sent with unknown fate"] = sum(map(len, self._journal.unsure.values()))
        return self._findings

    async def _read(self, key: str) -> list[RawEntry]:
        found: list[RawEntry] = []
        start = "-"
        while page := await self._link.call("XRANGE", key, start, "+", "COUNT", PAGE):
            found += page
            start = f"({page[-1][0].decode()}"
        return found

    async def _check_state(self, name: str, done: Sequence[int]) -> None:
        partition = partition_of(name, self._partitions)
        packed = await self._link.call("HGET", self._keys.state(partition, ScopeId(name)), "state")
        state = unpack(packed) if packed else {}
        is_kept = done and not name.startswith("bare")
        expected = {"count": len(done), "last": done[-1]} if is_kept else {}
        if state != expected:
            self._findings.blame("wrong durable state", f"{name}: {state}, expected {expected}")

    def _check_seen(
        self,
        name: str,
        seen: Mapping[tuple[str, int], tuple[str, int]],
        raw: Sequence[RawEntry],
        replies: Sequence[Reply],
    ) -> None:
        """What a live reader saw is there, or is told by ``(i, n)`` in the history that is left."""
        prints = {print_of(entry) for entry in raw}
        if missed := len(prints - seen.keys()):
            self._findings.figures["replies read after the end"] += missed
        causes = {reply.cause for reply in replies}
        places = {(reply.cause, reply.index) for reply in replies}
        for found, (cause, index) in seen.items():
            if found in prints:
                continue
            if not any(one.may_have_lost(name, found[0]) for one in self._journal.failovers):
                self._findings.blame("seen and vanished", f"{name} {found[0]} ({cause}, {index})")
            elif (cause, index) in places:
                self._findings.figures["seen, forgotten by Redis, and said again as (i, n)"] += 1
            elif cause not in causes and self._journal.is_forgotten(name, cause):
                self._findings.figures["seen, and forgotten by Redis with its message"] += 1
            else:
                self._findings.blame("seen and vanished", f"{name} ({cause}, {index}) for ever")

    def _check_follower(self, name: str, follower: Follower, replies: Sequence[Reply]) -> None:
        """It got every reply once and in order, and was told of each restart."""
        self._findings.figures["replies followed by clients"] += len(follower.known)
        if self._journal.failovers:
            self._findings.figures["clients told that replies are gone"] += follower.told
            if missing := {(one.cause, one.index) for one in replies} - follower.known:
                self._findings.blame("lost", f"{name}: a client was not given {sorted(missing)}")
            return
        expected: list[tuple[str, str]] = []
        known: dict[str, str] = {}
        for reply in replies:
            before = known.setdefault(reply.cause, reply.attempt)
            if reply.index == 0 and reply.attempt != before:
                known[reply.cause] = reply.attempt
                expected.append(("anew", reply.cause))
            expected.append(("reply", reply.id))
        got = [
            ("anew", one.cause) if isinstance(one, Restarted) else ("reply", one.id)
            for one in follower.events
        ]
        if got != expected or follower.told:
            place = next(
                (i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b),
                min(len(got), len(expected)),
            )
            self._findings.blame(
                "lost",
                f"{name}: a client was given {got[place : place + 3]} "
                f"instead of {expected[place : place + 3]}, told {follower.told}",
            )

    async def _check_asked(self, name: str, answers: Sequence[object]) -> None:
        """Each request was answered once, with its own effect."""
        self._findings.figures["requests answered"] += len(answers)
        raw = await self._read(self._keys.replies(partition_of(name, self._partitions), name))
        replies = [read_reply(*entry) for entry in raw]
        for number, (answer, reply) in enumerate(zip(answers, replies, strict=False), 1):
            attempts = range(1, 2 + self._probes[name, reply.cause])
            done = {"type": "done", "n": number, "count": number}
            if answer not in [[{**done, "attempt": attempt}] for attempt in attempts]:
                self._findings.blame("wrong effect", f"{name} {number} was answered {answer}")
        numbers = [(reply.message or {}).get("n") for reply in replies]
        is_whole = numbers == list(range(1, len(numbers) + 1))
        if not is_whole or len(numbers) not in (len(answers), len(answers) + 1):
            self._findings.blame("doubled", f"{name}: {len(numbers)} for {len(answers)} requests")

    async def _check_letters(self, buried: Sequence[tuple[str, str]]) -> None:
        """A dead letter, whole, for each message that was answered so, and no other."""
        found: Counter[tuple[str, str]] = Counter()
        for number in range(self._partitions):
            for _, flat in await self._read(self._keys.dead(Partition(number))):
                letter = dict(zip(flat[::2], flat[1::2], strict=True))
                name, entry_id = letter[b"s"].decode(), letter[b"id"].decode()
                found[name, entry_id] += 1
                sent = next(
                    (o for o in self._journal.sent.get(name, ()) if o.entry_id == entry_id), None
                )
                probes = self._probes[name, entry_id]
                if sent is None or not _is_letter(letter, sent, probes):
                    self._findings.blame("dead letter missing or wrong", f"{letter}")
        if found != Counter(buried):
            odd = {*found.items()} ^ {*Counter(buried).items()}
            self._findings.blame("dead letter missing or wrong", f"{sorted(odd)[:5]}")

    async def _check_keys(self) -> None:
        """Nothing is left but what is documented; what is temporary expires."""
        for server in self._servers:
            await self._check_keys_of(server)
        for number in range(self._partitions):
            left = await self._link.call("XLEN", self._keys.entries(Partition(number)))
            owner = await self._link.call("HGET", self._keys.lease(Partition(number)), "owner")
            if left or owner:
                self._findings.blame("left behind", f"partition {number}: {left}, owner {owner}")

    async def _check_keys_of(self, server: Link) -> None:
        cursor = b"0"
        while True:
            cursor, names = await server.call("SCAN", cursor, "COUNT", PAGE)
            expiries = await server.calls([("PTTL", name) for name in names])
            for name, expiry in zip(names, expiries, strict=True):
                text = name.decode()
                self._findings.figures["keys left"] += 1
                if TEMPORARY.fullmatch(text):
                    if expiry < 0:
                        self._findings.blame("left behind", f"{text} without expiry")
                elif not LASTING.fullmatch(text) or expiry >= 0:
                    self._findings.blame("left behind", f"{text} (expiry {expiry})")
            if cursor == b"0":
                break


def _is_letter(letter: Mapping[bytes, bytes], sent: Sent, probes: int) -> bool:
    has_failed = letter[b"error"].startswith(b"Planned: ") and b"Planned" in letter[b"traceback"]
    return (
        unpack(letter[b"m"])["n"] == sent.number
        and letter[b"attempts"] == str(MAX_ATTEMPTS).encode()
        and (has_failed or died_of(letter[b"error"].decode(), sent, probes))
        and b"when" in letter
    )
