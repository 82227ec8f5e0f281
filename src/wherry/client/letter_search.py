"""Searching dead letters and held messages: by scope, error and age, page by page.

Redis has no index of them: they are looked at one after another, in the order of partitions and
ids, at most so many in one search; the next one goes on behind the place where it ended.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple, Self

from ..errors import ConfigError
from ..model import ORIGIN, DeadLetter, id_key, partition_of
from .deadletters import DeadLetters

_PLACE = re.compile(r"([0-9]{1,9})/(held/)?([0-9]{1,20}-[0-9]{1,20})")
_LAST_SEQUENCE = 2**64 - 1
_PAGE = 50
"""Each may have a megabyte."""


class Place(NamedTuple):
    """Names one dead letter, or one held message, of a namespace; places sort as they are read.

    Attributes:
        partition: where it lies.
        is_held: whether it holds its scope; then the id is its entry's.
        letter_id: its id there.
    """

    partition: int
    is_held: bool
    letter_id: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a place as it is written, ``PARTITION/ID`` or ``PARTITION/held/ID``.

        Raises:
            ConfigError: it is written otherwise.
        """
        match = _PLACE.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{text!r} names no dead letter; copy what `wherry dlq ls` shows, such as "
                "7/1700000000000-0 or 7/held/1700000000000-0"
            )
        return cls(int(match[1]), bool(match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.partition}/{'held/' if self.is_held else ''}{self.letter_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters are wanted; those that meet all of it.

    Attributes:
        scope_id: of this scope, "" for any.
        error: with this text in their error, upper and lower case alike; "" for any.
        since_unix_ms: died then or later; of a held one it counts when it was sent.
        until_unix_ms: died then or earlier.
        partition: of this partition, None for any.
        is_held: held ones alone, dead ones alone, or both if None.
    """

    scope_id: str = ""
    error: str = ""
    since_unix_ms: int = 0
    until_unix_ms: int
    partition: int | None = None
    is_held: bool | None = None

    def has(self, letter: DeadLetter) -> bool:
        """Whether a letter is among them."""
        moment = id_key(letter.letter_id)[0]
        return (
            (not self.scope_id or letter.scope_id == self.scope_id)
            and self.error.lower() in letter.error.lower()
            and self.since_unix_ms <= moment <= self.until_unix_ms
        )


class Search:
    """One search.

    Attributes:
        looked_at: how many letters it has seen.
        place: the last one that it has seen; where the next search goes on.
        is_over: whether there are no more.
    """

    __slots__ = ("_letters", "_most", "_wanted", "is_over", "looked_at", "place")

    def __init__(
        self, letters: DeadLetters, wanted: Wanted, *, after: Place | None, most: int
    ) -> None:
        """Look at up to so many letters behind a place."""
        self._letters = letters
        self._wanted = wanted
        self._most = most
        self.looked_at = 0
        self.place = after
        self.is_over = False

    async def matches(self) -> AsyncGenerator[tuple[Place, DeadLetter]]:
        """Yield what is found; raises as the methods of `DeadLetters` do.

        Letters that die meanwhile are not found, if ``until_unix_ms`` was now at the start.
        """
        start = self.place
        for partition in await self._partitions():
            for is_held in (False, True):
                if self._wanted.is_held not in (None, is_held):
                    continue
                after: str = ORIGIN
                if start is not None:
                    if (partition, is_held) < start[:2]:
                        continue
                    if (partition, is_held) == start[:2]:
                        after = start.letter_id
                async for letter in self._read(partition, after, is_held=is_held):
                    if self.looked_at >= self._most:
                        return
                    self.looked_at += 1
                    self.place = Place(partition, is_held, letter.letter_id)
                    if self._wanted.has(letter):
                        yield self.place, letter
        self.is_over = True

    async def _partitions(self) -> list[int]:
        known = await self._letters.partitions()
        if self._wanted.scope_id:
            own = partition_of(self._wanted.scope_id, len(known))
            return [own] if self._wanted.partition in (None, own) else []
        if self._wanted.partition is not None:
            return [self._wanted.partition] if self._wanted.partition in known else []
        return list(known)

    async def _read(
        self, partition: int, after: str, *, is_held: bool
    ) -> AsyncGenerator[DeadLetter]:
        """Letters of a partition behind an id that are of the right age."""
        since = self._wanted.since_unix_ms
        if since and id_key(after)[0] < since:
            after = f"{since - 1}-{_LAST_SEQUENCE}"
        read = self._letters.held if is_held else self._letters.page
        while page := await read(partition, after=after, count=_PAGE):
            for letter in page:
                if id_key(letter.letter_id)[0] > self._wanted.until_unix_ms:
                    return
                yield letter
            after = page[-1].letter_id
