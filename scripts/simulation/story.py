"""Story: what happens under one seed, from the first worker's start to the checker's verdict."""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from wherry.engine import portions
from wherry.model import partition_of

from .checking import Checker
from .faults import AIMED, Faults, make_plan
from .points import learn_scripts
from .world import MAX_ATTEMPTS, PARTITIONS, Verdict, World

SETTLE_S = 60.0
PORTION = 2
"""Few entries come at a time: what a worker handles in portions is as much less."""


def play(
    seed: int,
    *,
    steps: int = 200,
    faults: int = 5,
    aims: Sequence[str] = AIMED,
    tell: Callable[[str], None] | None = None,
) -> Verdict:
    """Run one seed; ``aims`` are the points at which it aims."""
    with _determined(seed), patch.object(portions, "PORTION", PORTION):
        story = Story(seed, steps, faults, aims, tell)
        for part in (story.run, story.world.close):
            try:
                part()
            except Exception as error:  # noqa: BLE001 - an endless loop, say: a finding like others
                story.world.find(f"raised: {error!r}")
    return story.world.verdict


class _Ordered(dict[Any, None]):
    """A set that keeps the order in which things came."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


@contextmanager
def _determined(seed: int) -> Generator[None]:
    """Let nothing depend on chance, memory addresses or the collector."""
    begin = asyncio.TaskGroup.__init__
    token_hex, was_enabled = secrets.token_hex, gc.isenabled()
    chance, source = random.getstate(), random.Random(seed)

    def begin_in_order(group: Any) -> None:
        begin(group)
        group._tasks = _Ordered()  # it cancels its tasks in the order of a set

    def token(size: int | None = None) -> str:
        return f"{source.getrandbits(8 * (size or 32)):0{2 * (size or 32)}x}"

    asyncio.TaskGroup.__init__ = begin_in_order  # type: ignore[method-assign]
    secrets.token_hex = token
    gc.disable()
    random.seed(seed)
    try:
        yield
    finally:
        asyncio.TaskGroup.__init__ = begin  # type: ignore[method-assign]
        secrets.token_hex = token_hex
        random.setstate(chance)
        if was_enabled:
            gc.enable()


class Story:
    """Faults in a world, for so many steps."""

    def __init__(
        self,
        seed: int,
        steps: int,
        faults: int,
        aims: Sequence[str],
        tell: Callable[[str], None] | None,
    ) -> None:
        learn_scripts()
        self._steps = steps
        self._faults = faults
        self._chance = random.Random(seed)
        self._plan = make_plan(seed, faults, self._chance, aims)
        self._strikes = Faults(aims)
        self.world = World(seed, self._chance, self._plan, self._strikes, tell)
        self._strikes.rule(self.world)

    def run(self) -> None:
        """Tell the whole story.

        Raises:
            HarnessError: something runs without end.
        """
        for _ in range(3):
            self.world.fleet.start()
        self.world.loop.run_until(
            lambda: all(one.has_joined for one in self.world.fleet.members.values()), 9
        )
        self.world.loop.advance(1.0)
        times = sorted(self._chance.randrange(self._steps) for _ in self._plan)
        plan = list(self._plan)
        for number in range(self._steps):
            while times and times[0] <= number:
                times.pop(0)
                self._strikes.arm(plan.pop(0))
            self.world.step()
            self.world.fleet.check()
        for turn in range(30):
            if self._strikes.struck >= self._faults and not self._strikes.armed:
                break
            if turn % 10 == 9:
                self._strikes.armed.clear()  # it does not come to that in this seed; others do
            self._strikes.insist()
        self._heal()
        self._end()
        self.world.verdict.trace = self.world.network.trace
        self.world.verdict.figures.update(
            calls=self.world.network.calls,
            sent=self.world.sent,
            accepted=len(self.world.accepted),
            struck=self._strikes.struck,
            seeds_with_fewer_faults=self._strikes.struck < self._faults,
            virtual_s=round(self.world.loop.time()),
        )

    def _heal(self) -> None:
        """No more faults: whatever was begun must come to its end."""
        self._strikes.armed.clear()
        while len(self.world.fleet.awake()) < 2:
            self.world.fleet.start()
        until_s = self.world.loop.time() + SETTLE_S
        while self.world.loop.time() < until_s:
            self.world.loop.advance(0.5)
            self.world.fleet.check()
            if len(self.world.fleet.awake()) < 2:
                self.world.fleet.start()
            if not self.world.sending and not self.world.backlog() and self._is_calm():
                return
        world = self.world
        world.find(
            f"stuck: {world.backlog()} entries and {len(world.sending)} sends after a minute; "
            f"the partitions belong to {world.owners()}"
        )

    def _is_calm(self) -> bool:
        members = self.world.fleet.members
        is_disturbed = any(one.is_frozen or one.is_draining for one in members.values())
        return not is_disturbed and all(owner in members for owner in self.world.owners())

    def _end(self) -> None:
        self.world.is_ending = True
        self.world.loop.run(self.world.client.aclose())
        for member in list(self.world.fleet.members.values()):
            self.world.fleet.drain(member)
        self.world.loop.run_until(
            lambda: all(one.task.done() for one in self.world.fleet.members.values()), SETTLE_S
        )
        self.world.fleet.check()
        for name in self.world.fleet.members:
            self.world.find(f"{name} does not end though it was asked to")
        checker = Checker(self.world.server, self.world.application, MAX_ATTEMPTS, self.world.find)
        checker.went_back = self.world.went_back
        checker.may_reorder = self.world.went_back and self.world.network.is_info_forbidden
        # Nobody knows of a lease whose claim was not answered, or that is out of lost history.
        is_known = not self.world.went_back and not any(
            point.startswith("claim.") for point in self.world.verdict.hits
        )
        if is_known:
            checker.check_released(PARTITIONS)
        checker.check(
            self.world.accepted, lambda scope_id: partition_of(scope_id, PARTITIONS), PARTITIONS
        )
        self._check_attempts()

    def _check_attempts(self) -> None:
        for entry_id, attempt in self.world.application.attempts.items():
            if attempt - 1 > self.world.application.raised[entry_id]:
                self.world.find(f"{entry_id}: attempts over-counted: attempt {attempt}")
