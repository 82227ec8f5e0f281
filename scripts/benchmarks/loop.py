"""Loop: the event loop that ``wherry run`` takes, for what is measured beside it."""

from __future__ import annotations

import asyncio
import importlib.util

NAME = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where that is installed, else asyncio's own."""
    if NAME == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()
