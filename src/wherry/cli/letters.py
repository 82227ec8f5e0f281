"""What ``wherry dlq`` does: list, show, send again and drop, bounded in each call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from ..broker.connect import Store
from ..broker.streams import read_partition_count
from ..broker.wire import Keys
from ..client.client import Client
from ..client.deadletters import DeadLetters
from ..client.letter_search import Place, Search, Wanted
from ..config import Config
from ..errors import BacklogFull
from ..model import DeadLetter

LOOKED_AT = 100_000
"""Letters that one call looks at."""
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the options say; see `Wanted`, which has instants where these are ages.

    Attributes:
        limit: of what is shown or changed by one call.
        after: where an earlier call ended.
    """

    scope: str = ""
    error: str = ""
    older_than_s: float | None = None
    newer_than_s: float | None = None
    partition: int | None = None
    is_held: bool | None = None
    limit: int = 100
    after: Place | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no option narrows it."""
        unset = Choice(limit=self.limit, after=self.after)
        return self == unset

    def wanted(self, now_ms: int) -> Wanted:
        """The same by Redis' clock."""
        since, until = self.newer_than_s, self.older_than_s
        return Wanted(
            scope_id=self.scope,
            error=self.error,
            since_unix_ms=0 if since is None else now_ms - int(since * 1000),
            until_unix_ms=now_ms if until is None else now_ms - int(until * 1000),
            partition=self.partition,
            is_held=self.is_held,
        )


@dataclass(slots=True, eq=False)
class Listing:
    """What was found.

    Attributes:
        found: places and letters, in order.
        now_ms: Redis' clock.
        looked_at: letters that were looked at.
        resume: where the next call goes on, None if there is no more.
    """

    found: list[tuple[Place, DeadLetter]] = field(default_factory=lambda: [])
    now_ms: int = 0
    looked_at: int = 0
    resume: Place | None = None


@dataclass(slots=True, eq=False)
class Outcome:
    """What was changed.

    Attributes:
        done: letters replayed or dropped.
        gone: places at which there was no letter any more.
        looked_at: letters that were looked at.
        resume: where the next call goes on, None if there is no more.
        refusal: why it ended before its time, "" if it did not.
    """

    done: int = 0
    gone: list[Place] = field(default_factory=lambda: [])
    looked_at: int = 0
    resume: Place | None = None
    refusal: str = ""


class Letters:
    """The dead letters of a namespace, as one command uses them."""

    def __init__(self, letters: DeadLetters | None) -> None:
        """None: nobody has used the namespace yet, and it is not made for this."""
        self._letters = letters

    async def list(self, choice: Choice) -> Listing:
        """Find letters, up to the limit of the choice."""
        listing = Listing()
        if self._letters is None:
            return listing
        listing.now_ms = await self._letters.unix_ms()
        search = self._search(choice, listing.now_ms)
        async with aclosing(search.matches()) as matches:
            async for place, letter in matches:
                if len(listing.found) == choice.limit:
                    listing.resume = listing.found[-1][0]
                    break
                listing.found.append((place, _headline(letter)))
            else:
                listing.resume = None if search.is_over else search.place
        listing.looked_at = search.looked_at
        return listing

    async def get(self, place: Place) -> tuple[DeadLetter, int] | None:
        """One letter and Redis' clock; None if it is not there."""
        if self._letters is None or place.partition not in await self._letters.partitions():
            return None
        if place.is_held:
            letter = await self._letters.get_held(place.partition, place.letter_id)
        else:
            letter = await self._letters.get(place.partition, place.letter_id)
        return None if letter is None else (letter, await self._letters.unix_ms())

    async def change(self, places: Sequence[Place], *, drops: bool, dry_run: bool) -> Outcome:
        """Replay or drop letters, in the order given, or only see which of them are there."""
        outcome = Outcome()
        if self._letters is None:
            outcome.gone += places
            return outcome
        known = await self._letters.partitions()
        batch: list[Place] = []
        for place in places:
            if place.partition not in known or (dry_run and await self.get(place) is None):
                outcome.gone.append(place)
            elif dry_run:
                outcome.done += 1
            elif not await self._add(batch, place, outcome, drops=drops):
                return outcome
        await self._act(batch, outcome, drops=drops)
        return outcome

    async def change_all(self, choice: Choice, *, drops: bool, dry_run: bool) -> Outcome:
        """Replay or drop what is found, up to the limit of the choice.

        Those that die again meanwhile are left alone.
        """
        outcome = Outcome()
        if self._letters is None:
            return outcome
        search = self._search(choice, await self._letters.unix_ms())
        batch: list[Place] = []
        chosen = 0
        async with aclosing(search.matches()) as matches:
            async for place, _ in matches:
                if chosen == choice.limit:
                    break
                chosen += 1
                outcome.resume = place
                if dry_run:
                    outcome.done += 1
                elif not await self._add(batch, place, outcome, drops=drops):
                    break
            else:
                outcome.resume = None if search.is_over else search.place
        if not outcome.refusal:
            await self._act(batch, outcome, drops=drops)
        outcome.looked_at = search.looked_at
        return outcome

    def _search(self, choice: Choice, now_ms: int) -> Search:
        assert self._letters is not None
        return Search(self._letters, choice.wanted(now_ms), after=choice.after, most=LOOKED_AT)

    async def _add(
        self, batch: list[Place], place: Place, outcome: Outcome, *, drops: bool
    ) -> bool:
        """Put a place into the batch, acting on what is there when it cannot take it.

        Returns False if nothing more is to be done.
        """
        if batch and (len(batch) >= _AT_ONCE or batch[-1][:2] != place[:2]):
            await self._act(batch, outcome, drops=drops)
            batch.clear()
        batch.append(place)
        return not outcome.refusal

    async def _act(self, batch: Sequence[Place], outcome: Outcome, *, drops: bool) -> None:
        """Change those of one partition and kind."""
        assert self._letters is not None
        if not batch:
            return
        partition, is_held, _ = batch[0]
        ids = [one.letter_id for one in batch]
        if is_held:
            release = self._letters.drop_held if drops else self._letters.retry_held
            answers = [await release(partition, one) for one in ids]
        elif drops:
            # One by one: it matters which of them were there.
            answers = [await self._letters.drop(partition, one) == 1 for one in ids]
        else:
            try:
                answers = [one is not None for one in await self._letters.replay(partition, *ids)]
            except BacklogFull as error:
                outcome.refusal = str(error)
                outcome.done += sum(one is not None for one in error.accepted)
                outcome.resume = None
                return
        outcome.done += sum(answers)
        outcome.gone += [
            place for place, is_done in zip(batch, answers, strict=True) if not is_done
        ]


def _headline(letter: DeadLetter) -> DeadLetter:
    """What a list shows: of thousands of letters the payloads need not be kept."""
    kind = None if letter.message is None else {"type": letter.message.get("type")}
    return replace(letter, message=kind, fields={}, headers={}, traceback="")


@asynccontextmanager
async def open_letters(store: Store, config: Config) -> AsyncGenerator[Letters]:
    """The dead letters of a namespace; one that nobody uses yet is not made by that.

    Raises:
        WherryError: as the methods of `DeadLetters` do.
    """
    link = store.link()
    try:
        is_used = await read_partition_count(link, Keys(config.namespace)) is not None
    finally:
        await link.aclose()
    if not is_used:
        yield Letters(None)
        return
    async with Client(store, config=config) as client:
        yield Letters(client.dead_letters)
