"""Picture: what a worker process is at, as text for people; what SIGUSR1 prints.

Made between two instructions of whatever runs, so that a loop that does not turn shows itself too.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sysconfig
from collections import Counter
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, Protocol, cast

from ..runtime.lane import Lane

LINES = 50
"""Of instances, and as many of other tasks."""
_INSTANCE = "instance:"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PYTHON = tuple({sysconfig.get_path(one) + os.sep for one in ("stdlib", "purelib", "scripts")})


class Working(Protocol):
    """A worker; see `wherry.worker.Worker`."""

    worker_id: str

    @property
    def application_instances(self) -> Mapping[Any, Any]:
        """Scope id -> lane."""
        ...


def describe(worker: Working, loop: asyncio.AbstractEventLoop, running: FrameType | None) -> str:
    """Instances, busy ones first, and tasks; alike ones share a line.

    Args:
        worker: whose.
        loop: its event loop.
        running: what was interrupted, for a loop that is at work.
    """
    lanes = [one for one in worker.application_instances.values() if isinstance(one, Lane)]
    tasks = asyncio.all_tasks(loop)
    busy = [one for one in lanes if one.is_busy]
    counts = f"{len(lanes)} instances, {len(busy)} busy; {len(tasks)} tasks"
    lines = [f"wherry worker {worker.worker_id} (pid {os.getpid()}): {counts}"]
    current = asyncio.current_task(loop)
    if current is not None:
        lines.append(f"  the loop is at {current.get_name()}: {place_of(running)}")
    lines += _instances(lanes)
    lines += _tasks(one for one in tasks if not one.get_name().startswith(_INSTANCE))
    return "\n".join(lines)


def place_of(frame: FrameType | None) -> str:
    """Where a frame runs: the innermost line of the application's, or the innermost at all."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return _place(frames[::-1])


def _instances(lanes: Iterable[Lane]) -> list[str]:
    ordered = sorted(lanes, key=lambda one: (not one.is_busy, -len(one.input_queue.items)))
    lines: list[str] = []
    idle: Counter[str] = Counter()
    for lane in ordered:
        place = _place(_frames(cast("asyncio.Task[None]", lane.future)))
        waiting = len(lane.input_queue.items)
        if not lane.is_busy and not waiting:
            idle[f"{lane.state.value}, idle  {place}"] += 1
        elif len(lines) < LINES:
            unfinished = lane.instance.unfinished if lane.instance is not None else ()
            entries = " ".join(one.entry.id for one in unfinished[:3])
            what = "busy" if lane.is_busy else "waits for its turn"
            lines.append(
                f"  scope {lane.scope_id!r}  {what}  {waiting} waiting  entry {entries or '-'}  "
                f"{place}"
            )
    left = len(ordered) - len(lines) - idle.total()
    if left:
        lines.append(f"  and {left} more that are busy or have messages")
    return lines + [f"  {count} instances {what}" for what, count in idle.most_common(LINES)]


def _tasks(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    alike = Counter((one.get_name().partition(":")[0], _place(_frames(one))) for one in tasks)
    return [
        f"  task {kind}  {place}" + (f"  ({count} times)" if count > 1 else "")
        for (kind, place), count in alike.most_common(LINES)
    ]


def _frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """From the task's own coroutine to the one that it waits in, innermost last."""
    frames: list[FrameType] = []
    awaited: object = task.get_coro()
    while inspect.iscoroutine(awaited):
        if awaited.cr_frame is not None:
            frames.append(awaited.cr_frame)
        awaited = awaited.cr_await
    return frames


def _place(frames: list[FrameType]) -> str:
    """The innermost line of the application's; else of ours; else the innermost at all."""
    ours = [one for one in frames if one.f_code.co_filename.startswith(_PACKAGE)]
    foreign = (_PACKAGE, *_PYTHON, "<frozen")
    own = [one for one in frames if not one.f_code.co_filename.startswith(foreign)]
    frame = (own or ours or frames or [None])[-1]
    if frame is None:
        return "not started"
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
