"""The plugin for coroutine tests really fails what it says it fails."""

from __future__ import annotations

import asyncio

import pytest

from tests.async_plugin import run_checked


async def test_coroutine_tests_run_with_their_fixtures(tmp_path):
    assert asyncio.get_running_loop().is_running()
    assert tmp_path.is_dir()


def test_test_beyond_its_limit_fails():
    with pytest.raises(TimeoutError, match=r"longer than 0\.01 s"):
        asyncio.run(run_checked(asyncio.Event().wait, limit_s=0.01))


def test_timeout_of_the_test_itself_is_not_renamed():
    async def test():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match=r"^mine$"):
        asyncio.run(run_checked(test, limit_s=60))


def test_left_task_fails():
    left = []

    async def test():
        left.append(asyncio.create_task(asyncio.Event().wait(), name="kind:key"))

    with pytest.raises(AssertionError, match="kind:key"):
        asyncio.run(run_checked(test, limit_s=60))
    assert left[0].cancelled()


def test_exception_that_nobody_awaited_fails():
    async def test():
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("unheard"))

    with pytest.raises(AssertionError, match="unheard"):
        asyncio.run(run_checked(test, limit_s=60))
