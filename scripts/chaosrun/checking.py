"""The checker: reads reply streams, states and keys, and compares them with what was sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.broker.connect import Link
from wherry.broker.wire import Keys, read_reply, unpack
from wherry.model import Partition, Reply, ScopeId, partition_of

from .application import WORDS

DOCUMENTED = re.compile(
    r"\{chaos\}:(meta|members|joined|released|member:.+)"
    r"|\{chaos:\d+\}:(in|lease|attempts|dead|out:.+|scope:.+|sent:.+)"
)
LASTING = re.compile(r"\{chaos\}:meta|\{chaos:\d+\}:(in|lease|attempts|dead|scope:.+)")


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        figures: counts by name, all of which must be 0 but those of `GOOD`.
        examples: a few of what is wrong.
    """

    GOOD = ("accepted", "answered", "streamed answers", "streamed answers begun anew")
    figures: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def wrong(self, name: str, example: str) -> None:
        """Count something that must not be."""
        self.figures[name] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{name}: {example}")

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return all(name in self.GOOD for name, count in self.figures.items() if count)


class Checker:
    """Checks one finished run."""

    def __init__(self, link: Link, partitions: int) -> None:
        self._link = link
        self._keys = Keys("chaos")
        self._partitions = partitions

    async def check(
        self,
        counts: Mapping[str, int],
        told: Mapping[str, set[int]],
        seen: Mapping[str, list[Reply]],
    ) -> Verdict:
        """Compare everything; ``seen`` is what live readers saw of some scopes."""
        verdict = Verdict()
        for name, last in counts.items():
            replies = await self._read(name)
            verdict.figures["accepted"] += last
            _check_scope(verdict, name, last, told.get(name, set()), replies)
            await self._check_state(verdict, name, last)
            if name in seen:
                kept = {reply.id for reply in replies}
                for reply in seen[name]:
                    if reply.id not in kept:
                        verdict.wrong("seen and vanished", f"{name} {reply.id}")
        await self._check_keys(verdict)
        return verdict

    async def _read(self, name: str) -> list[Reply]:
        key = self._keys.replies(partition_of(name, self._partitions), name)
        found: list[Reply] = []
        start = "-"
        while entries := await self._link.call("XRANGE", key, start, "+", "COUNT", 1000):
            found += [read_reply(entry_id, flat) for entry_id, flat in entries]
            start = f"({found[-1].id}"
        return found

    async def _check_state(self, verdict: Verdict, name: str, last: int) -> None:
        partition = partition_of(name, self._partitions)
        packed = await self._link.call("HGET", self._keys.state(partition, ScopeId(name)), "state")
        state = unpack(packed) if packed else {}
        if state != {"count": last, "last": last}:
            verdict.wrong("wrong durable state", f"{name}: {state}, sent {last}")

    async def _check_keys(self, verdict: Verdict) -> None:
        cursor = b"0"
        while True:
            cursor, names = await self._link.call("SCAN", cursor, "COUNT", 1000)
            expiries = await self._link.calls([("PTTL", name) for name in names])
            for name, expiry in zip(names, expiries, strict=True):
                text = name.decode()
                if not DOCUMENTED.fullmatch(text):
                    verdict.wrong("undocumented key", text)
                elif expiry == -1 and not LASTING.fullmatch(text):
                    verdict.wrong("temporary key without expiry", text)
            if cursor == b"0":
                break
        for number in range(self._partitions):
            for kind in (self._keys.entries, self._keys.dead):
                left = await self._link.call("XLEN", kind(Partition(number)))
                if left:
                    verdict.wrong("left unfinished or buried", f"{kind(Partition(number))}: {left}")


def _check_scope(
    verdict: Verdict, name: str, last: int, told: set[int], replies: list[Reply]
) -> None:
    counted = [one for one in replies if one.message and one.message["type"] == "counted"]
    numbers = [one.message["n"] for one in counted if one.message]
    verdict.figures["answered"] += len(set(numbers))
    for number, times in Counter(numbers).items():
        if times > 1:
            verdict.wrong("doubled", f"{name} {number}: {times} times")
    for number in set(range(1, last + 1)) - set(numbers):
        verdict.wrong("lost", f"{name} {number}")
    if numbers != sorted(numbers):
        verdict.wrong("out of order", name)
    for reply in counted:
        message = reply.message or {}
        if not message["in_order"] or message["count"] != message["n"]:
            verdict.wrong("wrong effect", f"{name} {message}")
    _check_told(verdict, name, told, replies)


def _check_told(verdict: Verdict, name: str, told: set[int], replies: list[Reply]) -> None:
    """Every streamed answer is whole after its last beginning, and each beginning is marked."""
    by_cause: dict[str, list[Reply]] = {}
    for reply in replies:
        if reply.attempt:
            by_cause.setdefault(reply.cause, []).append(reply)
    for cause, parts in by_cause.items():
        begins = [index for index, part in enumerate(parts) if part.index == 0]
        attempts = [parts[index].attempt for index in begins]
        if len(set(attempts)) != len(attempts):
            verdict.wrong("beginning not marked", f"{name} {cause}")
        verdict.figures["streamed answers begun anew"] += max(0, len(begins) - 1)
        final = parts[begins[-1] :] if begins else parts
        words = [one.message["word"] for one in final if one.message and "word" in one.message]
        indices = [one.index for one in final if one.message]
        ends = [one.count for one in final if one.is_end]
        length = len(WORDS) + 1
        if words != list(WORDS) or indices != list(range(length)) or ends != [length]:
            verdict.wrong("streamed answer not whole", f"{name} {cause}: {words}")
        verdict.figures["streamed answers"] += 1
    if len(by_cause) != len(told):
        verdict.wrong("streamed answers lost", f"{name}: {len(by_cause)} of {len(told)}")
