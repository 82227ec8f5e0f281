"""Run coroutine tests: ``async def test_...`` needs no decorator.

Each runs on an event loop of its own and fails

- after 60 s, or what ``@pytest.mark.limit_s(...)`` says: nothing may wait for ever,
- if it leaves a task running at its end: what starts a task must end it,
- if the loop's exception handler is called: an exception that nobody awaited. A test that expects
  one sets a handler of its own on its loop.

Fixtures are plain functions. What must be entered and left on the test's loop is an asynchronous
context manager that the test enters itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

LIMIT_S = 60.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test; leave all others to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    mark = pyfuncitem.get_closest_marker("limit_s")
    limit_s = float(mark.args[0]) if mark else LIMIT_S
    with asyncio.Runner() as runner:
        runner.run(run_checked(lambda: pyfuncitem.obj(**arguments), limit_s=limit_s))
    return True


async def run_checked(test: Callable[[], Awaitable[object]], *, limit_s: float) -> None:
    """Await a test under its time limit, then look for what it left behind.

    Raises:
        TimeoutError: the test ran longer than `limit_s`.
        AssertionError: it left tasks, or exceptions reached the loop's handler.
    """
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            await test()
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"the test ran longer than {limit_s:g} s") from error
        raise
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"the test left tasks running: {sorted(map(repr, left))}"
    assert not unhandled, f"exceptions that nobody awaited: {unhandled}"
