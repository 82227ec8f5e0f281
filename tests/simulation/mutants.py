"""Mutants: named ways to break the engine, each switched on for as long as a ``with`` block lasts.

Nothing in the product knows of them. Those of the scripts are substitutions in their text; if a
script was rewritten and the text is gone, the mutant says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from scripts.simulation.agenda import in_world
from scripts.simulation.faults import AIMED
from scripts.simulation.fleet import Fleet
from scripts.simulation.story import play
from scripts.simulation.world import Verdict
from tests.broker.tenure import steps_of
from wherry.broker import calls, scripts
from wherry.broker.commits import each_of
from wherry.broker.history import Past
from wherry.broker.leases import Leases
from wherry.broker.wire import pack, unpack
from wherry.engine.ledger import Ledger
from wherry.errors import StoreUnavailable
from wherry.runtime import committer, queues
from wherry.runtime.committer import Committer
from wherry.runtime.duties import Duties
from wherry.runtime.holding import Holding, Track
from wherry.runtime.tracked import Tracked

Mutant = Callable[[], Any]
MUTANTS: dict[str, Mutant] = {}
MOST = 300
"""A mutant that so many seeds do not catch is not caught."""


def mutant(make: Callable[[], Generator[None]]) -> Callable[[], Any]:
    """Note a mutant under the name of its function."""
    manager = contextmanager(make)
    MUTANTS[make.__name__] = manager
    return manager


@contextmanager
def _text(name: str, *changes: tuple[str, str]) -> Generator[None]:
    read = scripts._read

    def changed(wanted: str) -> str:
        text = read(wanted)
        if wanted == name:
            for before, after in changes:
                assert before in text, f"{name}.lua has changed: {before!r} is not in it"
                text = text.replace(before, after)
        return text

    with patch.object(scripts, "_read", changed):
        yield


_FENCE = "call('HGET', lease_key, 'token') ~= token"


@mutant
def no_fence() -> Generator[None]:
    """Whoever lost a partition goes on writing."""
    with _text("commit", (_FENCE, "false")):
        yield


@mutant
def epoch_instead_of_token() -> Generator[None]:
    """The fence compares epochs, which two owners can share after Redis went back in time."""
    by_epoch = "call('HGET', lease_key, 'epoch') ~= string.match(token, '^%d+')"
    with _text("commit", (_FENCE, by_epoch)):
        yield


@mutant
def no_xdel_answer() -> Generator[None]:
    """A commit that is sent again writes its replies again."""
    with _text("commit", ("if not finish_entry(id) then", "finish_entry(id)\n  if false then")):
        yield


@mutant
def emits_not_numbered() -> Generator[None]:
    """An emit that is sent again is written again."""
    with _text("commit", ("if sequence <= tonumber(", "if false and sequence <= tonumber(")):
        yield


@mutant
def no_state_version() -> Generator[None]:
    """A state is written whatever it was built on."""
    stale = "if version ~= expected then"
    with _text("commit", (stale, "if false then")):
        yield


@mutant
def no_tombstones() -> Generator[None]:
    """A read that was sent before a commit brings the entry again."""
    finish = Ledger.finish

    def forget(self: Ledger, entry_ids: Any, _sent: int, answered: int) -> None:
        finish(self, entry_ids, answered, answered)

    with patch.object(Ledger, "finish", forget):
        yield


@mutant
def cursor_not_reset() -> Generator[None]:
    """After doubt, reading goes on where it was."""

    def rewind(self: Ledger) -> None:
        self.rewinds += 1

    with patch.object(Ledger, "rewind", rewind):
        yield


@mutant
def attempts_not_counted() -> Generator[None]:
    """What fails for ever is tried for ever."""
    failed = Tracked.failed

    def uncounted(self: Any, lane: Any, delivery: Any, *rest: Any, **more: Any) -> Any:
        before = delivery.attempt
        answer = failed(self, lane, delivery, *rest, **more)
        delivery.attempt = before
        return answer

    with patch.object(Tracked, "failed", uncounted):
        yield


@mutant
def takeovers_counted() -> Generator[None]:
    """A message whose worker lost its partition has failed one attempt more."""
    read = Leases.attempts

    async def counted(self: Leases, partitions: Any) -> Any:
        found = await read(self, partitions)
        for rows in filter(None, found):
            for entry_id, packed in rows.items():
                row = unpack(packed)
                rows[entry_id] = pack({**row, "attempts": row.get("attempts", 0) + 1}, "attempt")
        return found

    with patch.object(Leases, "attempts", counted):
        yield


@mutant
def evicted_before_acknowledged() -> Generator[None]:
    """An instance is ended, and its state loaded again, while its commits are on their way."""

    async def at_once(_: Track) -> None:
        pass

    def drop(self: Holding, track: Track) -> None:
        if not track.lane:
            self.tracks.pop(track.scope_id, None)

    with (
        patch.object(Tracked, "rest", lambda *_: True),
        patch.object(Track, "wait_settled", at_once),
        patch.object(Holding, "drop_if_unused", drop),
    ):
        yield


@mutant
def two_calls_in_flight() -> Generator[None]:
    """The operations of a partition go in two calls at a time, which may overtake each other."""
    run_many, split = scripts.run_many, calls.encode_calls

    def encode(script: Any, keys: Any, joined: Any, retention: Any) -> Any:
        [call] = joined
        operations = [one for step in call.steps for one in each_of(step)]
        half = len(operations) // 2
        halves = [steps_of(operations[:half]), steps_of(operations[half:])]
        return [split(script, keys, [replace(call, steps=one)], retention) for one in halves if one]

    def apart(some: Any, most: int, now_s: float) -> list[list[Any]]:
        return [joined for queue in some for joined in load_groups([queue], most, now_s)]

    async def run_both(link: Any, sent: Any) -> list[Any]:
        first = [(script, parts[0]) for script, parts in sent]
        second = [(script, parts[-1]) for script, parts in sent if len(parts) > 1]
        late = asyncio.ensure_future(run_many(link, first))
        try:
            behind = iter(await run_many(link, second) if second else [])
        except StoreUnavailable:
            with contextlib.suppress(StoreUnavailable):
                await late
            raise
        answers = await late
        for index, (_, parts) in enumerate(sent):
            if len(parts) > 1:
                one, other = answers[index], next(behind)
                if isinstance(one, int) and isinstance(other, int):
                    answers[index] = one + other
                elif isinstance(one, int | list) and isinstance(other, int | list):
                    answers[index] = [*_listed(one), *_listed(other)]
        return answers

    load_groups = queues.load_groups
    with (
        patch.object(committer, "encode_calls", encode),
        patch.object(committer, "run_many", run_both),
        patch.object(committer, "load_groups", apart),
    ):
        yield


def _listed(answer: int | list[Any]) -> list[Any]:
    """An answer for each operation, where one number says that all are done."""
    return [1] * answer if isinstance(answer, int) else answer


@mutant
def resends_not_marked() -> Generator[None]:
    """What was done already when it was sent again looks like somebody else's work."""
    encode = calls.encode_calls

    def unmarked(script: Any, keys: Any, joined: Any, retention: Any) -> Any:
        return encode(script, keys, [replace(call, is_resent=False) for call in joined], retention)

    with patch.object(committer, "encode_calls", unmarked):
        yield


@mutant
def commits_not_sent_again() -> Generator[None]:
    """What was in flight when the connection broke is taken for done."""

    def give_up(_: Any, queues: Any) -> None:
        for queue in queues:
            queue.flight = None

    with patch.object(Committer, "_again", give_up):
        yield


@mutant
def runs_not_numbered() -> Generator[None]:
    """Two runs of one entry have the same name, and a reader cannot tell them apart."""

    def attempt_of(_: Any, track: Any, delivery: Any) -> str:
        return f"{track.holding.ledger.epoch}.{delivery.attempt}"

    with patch.object(Tracked, "attempt_of", attempt_of):
        yield


@mutant
def released_before_flushed() -> Generator[None]:
    """A hand-off does not wait for what is on its way."""

    async def at_once(*_: Any) -> None:
        pass

    with patch.object(Committer, "flush", at_once):
        yield


@mutant
def renewed_while_stalled() -> Generator[None]:
    """A worker keeps its leases though its event loop stands still."""
    freeze = Fleet.freeze

    def freeze_alone(self: Fleet, member: Any, for_s: float) -> None:
        freeze(self, member, for_s)
        network, name = self._network, member.name.encode()
        server = network.server

        def renew() -> None:
            if not member.is_frozen or member.node.is_dead:
                return
            for key in server.call("KEYS", "*:lease"):
                if server.call("HGET", key, "owner") == name:
                    server.call("HSET", key, "expiry", server.now_ms() + 1500)
            network.loop.at(0.5, renew)

        in_world(renew)

    with patch.object(Fleet, "freeze", freeze_alone):
        yield


@mutant
def history_forgotten() -> Generator[None]:
    """Nothing notices that Redis went back in time: no run id, no generation, no version."""

    async def meet(*_: object) -> None:
        pass

    with (
        patch.object(Past, "meet", meet),
        patch.object(Duties, "history_changed", lambda *_: None),
        MUTANTS["no_state_version"](),
    ):
        yield


CAUGHT_BY: dict[str, int] = {
    "no_fence": 4,
    "epoch_instead_of_token": 3,
    "no_xdel_answer": 5,
    "emits_not_numbered": 4,
    "no_state_version": 7,
    "no_tombstones": 0,
    "cursor_not_reset": 8,
    "attempts_not_counted": 0,
    "takeovers_counted": 0,
    "evicted_before_acknowledged": 0,
    "two_calls_in_flight": 0,
    "resends_not_marked": 8,
    "commits_not_sent_again": 0,
    "runs_not_numbered": 7,
    "released_before_flushed": 3,
    "renewed_while_stalled": 7,
    "history_forgotten": 0,
}
"""Mutant -> a seed that catches it, to look there first. `main` prints the table anew."""


AIMS: dict[str, Sequence[str]] = {
    "epoch_instead_of_token": ("world.split",),
    "no_state_version": ("world.forget", "world.rollback"),
    "no_tombstones": ("read.after.error",),
    "cursor_not_reset": ("read.after.error", "read.after.lost", "world.cut"),
    "runs_not_numbered": ("world.forget",),
    "history_forgotten": ("world.forget", "world.rollback"),
}
"""Mutant -> faults by which alone it shows: with all kinds of them hundreds of seeds may not bring
these together, and each change of the product shuffles the seeds."""


def catch(name: str, seeds: Iterable[int]) -> Verdict | None:
    """The first seed in which a mutant shows, None if it shows in none."""
    aims = AIMS.get(name, AIMED)
    with MUTANTS[name]():
        for seed in seeds:
            verdict = play(seed, aims=aims)
            if verdict.findings:
                return verdict
    return None


def main() -> None:
    """Print which seed catches which mutant, and by what finding."""
    for name in MUTANTS:
        verdict = catch(name, range(MOST))
        found = f"{verdict.seed:4}  {verdict.findings[0][:110]}" if verdict else "NOT CAUGHT"
        print(f"{name:28} {found}", flush=True)


if __name__ == "__main__":
    main()
