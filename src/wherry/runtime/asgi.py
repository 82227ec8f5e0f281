"""ASGI callables: the two styles, and the events that Wherry itself understands."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import Any

from ..model import Application

ACK = "message.ack"
"""Sent by an application in ack mode: finishes the message whose ``id`` it names."""
FLUSH = "wherry.flush"
"""Sent by an application: write the replies held so far, before the commit."""

ASGI_VERSIONS = {"version": "3.0", "spec_version": "2.4"}
EXTENSIONS: dict[str, dict[str, Any]] = {FLUSH: {}, ACK: {}}

if sys.version_info >= (3, 12):
    _is_coroutine_function = inspect.iscoroutinefunction
else:
    # Before 3.12 callables are marked as coroutine functions in a way that asyncio alone knows.
    _is_coroutine_function = asyncio.iscoroutinefunction


def is_double_callable(application: Application) -> bool:
    """Whether an application is of ASGI 2: called with a scope, it gives the real callable.

    The marks ``_asgi_single_callable`` and ``_asgi_double_callable`` decide where they are set;
    otherwise a class is of ASGI 2, and so is anything that is no coroutine function.
    """
    if getattr(application, "_asgi_single_callable", False):
        return False
    if getattr(application, "_asgi_double_callable", False) or inspect.isclass(application):
        return True
    call = getattr(application, "__call__", None)  # noqa: B004 - the method itself is inspected
    return not (_is_coroutine_function(application) or _is_coroutine_function(call))


def single_callable(application: Application) -> Application:
    """The application in the style of ASGI 3."""
    if not is_double_callable(application):
        return application

    async def called(scope: Any, receive: Any, send: Any) -> None:
        await application(scope)(receive, send)

    return called
