"""Replies are held until the commit; whoever may not know that is told once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from wherry.testing import Harness

TOLD = "replies were held for over a second"


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, and goes on for two seconds."""
    while True:
        message = await receive()
        await send({"type": "answer"})
        if message.get("flushes"):
            await send({"type": "wherry.flush"})
        await asyncio.sleep(2)


@pytest.mark.parametrize(("flushes", "times"), [(False, 1), (True, 0)])
def test_a_reply_held_for_long_is_told_once(
    flushes: bool, times: int, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING), Harness(slow, lifespan="off") as harness:
        for _ in range(3):
            harness.send("alice", {"type": "ask", "flushes": flushes})
        harness.advance(10)
        assert len(harness.replies("alice")) == 3
    assert sum(TOLD in record.getMessage() for record in caplog.records) == times
