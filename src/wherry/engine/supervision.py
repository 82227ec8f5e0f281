"""Supervision: which worker processes to start and to stop next.

Each slot has one process that serves in it and, while that is being replaced, its successor. What
happens is told to `Supervision`, which answers with steps; it starts nothing itself.

The rules: a new process is ready before an old one is told to go, one at a time. Whoever ends
unasked is replaced at once, and ever later when that happens again soon. While nobody serves, one
process tries to start for all, so that a mistake is told once; when it does not succeed in
`MAX_TRIES`, that is the end. While others serve it is tried for ever, and they are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from .processes import Kill, Life, Process, Slot, Start, Step, Tell, Terminate

MAX_TRIES = 5
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 5.0
"""Who has served for so long and then ends did not end at its start."""
HEAD_START_S = 2.0
"""So long the first process is alone with its mistakes, if it has any."""
SLOW_START_S = 30.0
DRAIN_MARGIN_S = 10.0
"""Beyond the drain deadline: for instances to end, for what they did to be written."""
HURRY_S = 10.0

# Exit codes of a worker, see docs/configuration.md.
DRAINED, STARTUP_FAILED, UNREACHABLE, CUT_OFF = 0, 3, 4, 6
HOPELESS = frozenset({2, 5, 7})
"""Trying again does not mend: wrong usage, a refused login, a namespace that does not fit."""


class Supervision:
    """Decides for one supervisor.

    Attributes:
        processes: all that live, by number.
        failure: why no worker could be started, "" while that is not so.
    """

    def __init__(
        self,
        workers: int,
        *,
        drain_timeout_s: float,
        draw: Callable[[], float],
        awaits_changes: bool = False,
    ) -> None:
        """Keep so many workers.

        Args:
            workers: how many.
            drain_timeout_s: how long one may take for its running messages.
            draw: gives numbers from 0 to 1 by chance.
            awaits_changes: what does not start is not tried again before `renew`.
        """
        self.processes: dict[int, Process] = {}
        self.failure = ""
        self._slots = [Slot(index) for index in range(workers)]
        self._drain_timeout_s = drain_timeout_s
        self._draw = draw
        self._awaits_changes = awaits_changes
        self._is_waiting = False
        self._is_complete = False
        self._generation = 0
        self._stops = 0
        self._codes = [DRAINED]
        self._started = 0

    @property
    def is_over(self) -> bool:
        """Whether it was asked to stop and everybody has ended."""
        return self._stops > 0 and not self.processes

    @property
    def exit_code(self) -> int:
        """The worst code of those that ended since it was asked to stop."""
        return max(self._codes, key=_badness)

    def wake(self, now_s: float) -> list[Step]:
        """Time has passed; also the first call."""
        return self._plan(now_s, [])

    def ready(self, number: int, now_s: float) -> list[Step]:
        """A process is a member of the fleet."""
        steps: list[Step] = []
        process = self.processes.get(number)
        if process is not None and process.life is Life.STARTING:
            process.move(Life.SERVING)
            process.ready_at_s = now_s
            slot = self._slots[process.slot]
            slot.failed_starts = 0
            if slot.successor is process:
                old, slot.current, slot.successor = slot.current, process, None
                if old is not None:
                    self._drain(old, now_s, steps)
        return self._plan(now_s, steps)

    def recycle(self, number: int, reason: str, now_s: float) -> list[Step]:
        """A process asks to be replaced."""
        steps: list[Step] = []
        process = self.processes.get(number)
        if process is not None and process.ready_at_s is not None:
            process.worn = reason
            served_s = now_s - process.ready_at_s
            if served_s < STEADY_S:
                how = {"reason": reason, "duration_s": round(served_s, 1)}
                steps.append(Tell("a limit is so low that workers reach it soon", number, how))
        return self._plan(now_s, steps)

    def renew(self, now_s: float) -> list[Step]:
        """Replace everybody: a restart was asked for, or the code has changed."""
        steps: list[Step] = []
        if self._stops:
            return steps
        self._generation += 1
        self._is_waiting = self._is_complete = False
        for slot in self._slots:
            slot.failed_starts = slot.quick_ends = 0
            slot.start_at_s = now_s
            for process in (slot.current, slot.successor):
                if process is not None and process.life is Life.STARTING:
                    self._forget(slot, process)
                    self._drain(process, now_s, steps)
        return self._plan(now_s, steps)

    def stop(self, now_s: float) -> list[Step]:
        """The first call lets all drain, the second lets all hand back, the third kills."""
        steps: list[Step] = []
        self._stops += 1
        for process in self.processes.values():
            if self._stops == 1:
                if process.life is not Life.STOPPING:
                    self._drain(process, now_s, steps)
            elif self._stops == 2:
                steps.append(Terminate(process.number))
                process.kill_at_s = now_s + HURRY_S
            else:
                self._kill(process, steps)
        return self._plan(now_s, steps)

    def ended(self, number: int, code: int, now_s: float) -> list[Step]:
        """A process has ended.

        Args:
            number: whose.
            code: its exit code, negative for the signal that killed it.
            now_s: the time.
        """
        steps: list[Step] = []
        process = self.processes.pop(number)
        slot = self._slots[process.slot]
        self._forget(slot, process)
        if self._stops:
            if process.ready_at_s is not None:  # else it had nothing in hand
                self._codes.append(CUT_OFF if process.is_killed else code)
        elif process.life is not Life.STOPPING:
            self._replace(slot, process, code, now_s, steps)
        elif code != DRAINED and process.ready_at_s is not None:
            steps.append(Tell("a replaced worker did not end well", number, _how(code)))
        return self._plan(now_s, steps)

    def due_at_s(self, now_s: float) -> float | None:
        """When `wake` is to be called, though nothing happens before; None for never."""
        due = [one.kill_at_s for one in self.processes.values() if one.kill_at_s is not None]
        for process in self._starting():
            due += [process.started_at_s + HEAD_START_S, process.started_at_s + SLOW_START_S]
        if not self._is_waiting and not self._stops:
            due += [slot.start_at_s for slot in self._slots]
            due += [_worn_at_s(one) for one in self.processes.values()]
        return min((one for one in due if now_s < one < math.inf), default=None)

    def _starting(self) -> list[Process]:
        return [one for one in self.processes.values() if one.life is Life.STARTING]

    def _is_served(self) -> bool:
        return any(one.life is Life.SERVING for one in self.processes.values())

    def _forget(self, slot: Slot, process: Process) -> None:
        if slot.current is process:
            slot.current, slot.successor = slot.successor, None
        elif slot.successor is process:
            slot.successor = None

    def _replace(
        self, slot: Slot, process: Process, code: int, now_s: float, steps: list[Step]
    ) -> None:
        """A process has ended unasked."""
        if process.ready_at_s is None:
            slot.failed_starts += 1
        is_steady = process.ready_at_s is not None and now_s - process.ready_at_s >= STEADY_S
        slot.quick_ends = 0 if is_steady else slot.quick_ends + 1
        wait_s = self._backoff_s(slot.quick_ends)
        slot.start_at_s = now_s + wait_s
        how = _how(code) | {"again_in_s": round(wait_s, 1)}
        if process.ready_at_s is not None:
            steps.append(Tell("a worker ended; another is started", process.number, how))
            return
        how["attempt"] = slot.failed_starts
        steps.append(Tell("a worker ended at its start", process.number, how))
        is_vain = code in HOPELESS or slot.failed_starts >= MAX_TRIES or self._awaits_changes
        if not is_vain:
            return
        if self._is_served():
            if slot.current is not None and slot.current.generation < self._generation:
                self._give_up_renewal(steps)
        elif self._awaits_changes:
            self._is_waiting = True
            steps.append(Tell("no worker starts; waiting for a change of the code"))
        else:
            self._give_up(slot, code, now_s, steps)

    def _give_up_renewal(self, steps: list[Step]) -> None:
        for slot in self._slots:
            slot.failed_starts = 0
        for process in self.processes.values():
            process.generation = self._generation
        self._is_complete = True
        steps.append(
            Tell("the restart is given up, because a new worker does not start; the old ones go on")
        )

    def _give_up(self, slot: Slot, code: int, now_s: float, steps: list[Step]) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if code in HOPELESS:
            why = f"it ended at its start with {how}, which trying again does not mend"
        else:
            why = f"it ended at its start {slot.failed_starts} times, the last time with {how}"
        self.failure = f"no worker can be started: {why}; what it said stands above"
        is_known = code in HOPELESS or code == UNREACHABLE
        steps += self.stop(now_s)
        # Of those that were at their start nobody had anything in hand.
        self._codes = [code if is_known else STARTUP_FAILED]

    def _backoff_s(self, quick_ends: int) -> float:
        """The first is replaced at once; then it takes ever longer, a half of it by chance."""
        if quick_ends < 2:
            return 0.0
        longest_s = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(quick_ends - 2, 30))
        return longest_s * (1 - self._draw() / 2)

    def _drain(self, process: Process, now_s: float, steps: list[Step]) -> None:
        process.move(Life.STOPPING)
        process.kill_at_s = now_s + self._drain_timeout_s + DRAIN_MARGIN_S
        steps.append(Terminate(process.number))

    def _kill(self, process: Process, steps: list[Step]) -> None:
        process.kill_at_s = None
        process.is_killed = True
        steps.append(Kill(process.number))

    def _plan(self, now_s: float, steps: list[Step]) -> list[Step]:
        """Add what time and the state ask for."""
        for process in self.processes.values():
            if process.kill_at_s is not None and process.kill_at_s <= now_s:
                steps.append(Tell("a worker did not end in time and is killed", process.number))
                self._kill(process, steps)
            spent_s = now_s - process.started_at_s
            if process.life is Life.STARTING and spent_s >= SLOW_START_S and not process.is_slow:
                process.is_slow = True
                data = {"duration_s": round(spent_s)}
                steps.append(Tell("a worker is still starting", process.number, data))
        if not self._stops and not self._is_waiting:
            self._fill(now_s, steps)
            self._renew_one(now_s, steps)
            self._tell_when_complete(steps)
        return steps

    def _fill(self, now_s: float, steps: list[Step]) -> None:
        """Start what is missing."""
        for slot in self._slots:
            if slot.current is None and slot.start_at_s <= now_s and self._may_start(slot, now_s):
                slot.current = self._start(slot, now_s, steps)

    def _may_start(self, slot: Slot, now_s: float) -> bool:
        """While nobody serves one tries for all, until its start has lasted for a while."""
        if self._is_served():
            return True
        if starting := self._starting():
            return any(now_s - one.started_at_s >= HEAD_START_S for one in starting)
        empty = [one for one in self._slots if one.current is None]
        return slot is max(empty, key=lambda one: one.failed_starts)

    def _renew_one(self, now_s: float, steps: list[Step]) -> None:
        """Start one successor, unless one replacement is under way."""
        if any(slot.successor is not None for slot in self._slots) or any(
            one.life is Life.STOPPING for one in self.processes.values()
        ):
            return
        for slot in self._slots:
            current = slot.current
            if current is None or current.life is not Life.SERVING or slot.start_at_s > now_s:
                continue
            is_worn = _worn_at_s(current) <= now_s
            if is_worn or current.generation < self._generation:
                if is_worn:
                    why = {"reason": current.worn}
                    steps.append(Tell("a worker is replaced", current.number, why, False))
                slot.successor = self._start(slot, now_s, steps)
                return

    def _start(self, slot: Slot, now_s: float, steps: list[Step]) -> Process:
        self._started += 1
        process = Process(self._started, slot.index, self._generation, now_s)
        self.processes[process.number] = process
        steps.append(Start(process.number, slot.index))
        return process

    def _tell_when_complete(self, steps: list[Step]) -> None:
        """Tell once when everybody serves, at the beginning and after each restart."""
        if self._is_complete or any(
            one.life is not Life.SERVING for one in self.processes.values()
        ):
            return
        current = [slot.current for slot in self._slots if slot.current is not None]
        if len(current) == len(self._slots) and all(
            one.generation == self._generation for one in current
        ):
            self._is_complete = True
            event = "all workers are replaced" if self._generation else "all workers are ready"
            steps.append(Tell(event, None, {"count": len(current)}, False))


def _worn_at_s(process: Process) -> float:
    """From when on one may be replaced because it asked for that: not in a circle all the time."""
    if not process.worn or process.ready_at_s is None:
        return math.inf
    return process.ready_at_s + STEADY_S


def _how(code: int) -> dict[str, object]:
    return {"code": code} if code >= 0 else {"signal": -code}


def _badness(code: int) -> int:
    """How bad an exit code is: cut off is worse than drained, anything else is worse still."""
    order: Sequence[Iterable[int]] = ((DRAINED,), (CUT_OFF,), (UNREACHABLE,), HOPELESS)
    return next((place for place, codes in enumerate(order) if code in codes), len(order))
