"""Heeding: a cancellation that redis-py may lose is raised all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def heeding_cancellation() -> Generator[None]:
    """Raise the cancellation that redis-py may lose, whatever its call returned or raised.

    It writes under `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that
    comes in the tick of its result (https://github.com/python/cpython/issues/86296). A task
    that is cancelled once and never again would run on for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
