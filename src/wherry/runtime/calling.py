"""Calling: the one place where an application is called for a scope."""

from __future__ import annotations

from collections.abc import Awaitable

from ..model import Application
from .asgi import single_callable
from .consumers import RUNNING, see_consumers
from .instance import Instance


class Caller:
    """Calls applications of both styles; the style is looked up once for each application."""

    __slots__ = ("_adapted", "_application")

    def __init__(self) -> None:
        """Know none yet."""
        self._application: Application | None = None
        self._adapted: Application | None = None

    def call(self, application: Application, instance: Instance) -> Awaitable[None]:
        """Call an application with an instance's scope, ``receive`` and ``send``."""
        adapted = self._adapted
        if adapted is None or self._application is not application:
            self._application = application
            adapted = self._adapted = see_consumers(single_callable(application))
        RUNNING.set(instance)
        return adapted(scope=instance.scope, receive=instance.receive, send=instance.send)

    def ended(self) -> None:
        """The call of this task has ended."""
        RUNNING.set(None)  # no cycle: an instance's lane holds the task whose context this is
