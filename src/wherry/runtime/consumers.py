"""Consumers: those of Django Channels wait for ``receive()`` and for their channel layer at a time.

Without care such a consumer takes a message while it handles one of its layer's, and if it then
stops or fails it has never seen what it took. And that it calls ``receive()`` again only when a
message was handled is Channels' habit, not its promise. So a consumer that Wherry sees gets no
message while it is at another one, and finishes each when its ``dispatch`` is over.

Channels is not imported: its classes are known by their names, a consumer by what ``as_asgi()``
leaves on it (``channels/consumer.py``).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, cast

from ..errors import ApplicationError
from ..model import Application, Message
from .frameworks import is_channels
from .instance import Instance

RUNNING: ContextVar[Instance | None] = ContextVar("wherry_instance", default=None)
"""The instance whose application call this is; a middleware may stand between the two."""

_DEPTH = 20


def acknowledging(application: Application) -> Application:
    """Have a Channels consumer finish its messages when ``dispatch`` is over.

    Wherry does so by itself where it sees the consumer: behind Channels' routers and behind
    middlewares made from Channels' ``BaseMiddleware``. Behind others say it yourself:
    ``middleware(acknowledging(YourConsumer.as_asgi()))``. Outside Wherry nothing changes.

    Args:
        application: what ``as_asgi()`` returns, or something that Wherry sees through.

    Raises:
        ApplicationError: no consumer is seen in it, or none that does not acknowledge already.
    """
    seen = see_consumers(application)
    if seen is application:
        raise ApplicationError(
            f"no Channels consumer can be seen in {application!r} that does not acknowledge "
            "already; give acknowledging() what YourConsumer.as_asgi() returns"
        )
    return seen


def see_consumers(application: Application, depth: int = _DEPTH) -> Application:
    """The application; if consumers can be seen in it, a copy in which they acknowledge."""
    kind = getattr(application, "consumer_class", None)
    # functools.wraps() copies this mark from a consumer to whatever is put around it.
    if kind is not None and getattr(application, "__wrapped__", None) is kind:
        return _acknowledging(application, cast("Callable[..., Any]", kind))
    if not depth:
        return application
    if is_channels(application, "BaseMiddleware"):
        inner = getattr(application, "inner", None)
        seen = inner and see_consumers(cast("Application", inner), depth - 1)
        return _changed(application, "inner", inner, seen)
    if is_channels(application, "ProtocolTypeRouter", "ChannelNameRouter"):
        routes = getattr(application, "application_mapping", None)
        if isinstance(routes, Mapping):
            behind = dict(cast("Mapping[str, Application]", routes))
            all_seen = {name: see_consumers(one, depth - 1) for name, one in behind.items()}
            return _changed(application, "application_mapping", behind, all_seen)
    return application


def _changed(application: Application, name: str, before: object, after: object) -> Application:
    if after == before:
        return application
    changed = copy.copy(application)
    setattr(changed, name, after)
    return changed


def _acknowledging(application: Application, kind: Callable[..., Any]) -> Application:
    """What ``as_asgi()`` made, except that `_Dispatch` stands before the consumer's own."""
    arguments = cast("dict[str, Any]", getattr(application, "consumer_initkwargs", {}))

    @functools.wraps(application)
    async def called(scope: Any, receive: Any, send: Any) -> None:
        consumer = kind(**arguments)
        instance = RUNNING.get()
        if instance is None:
            await consumer(scope, receive, send)
            return
        instance.acks = True
        consumer.dispatch = dispatch = _Dispatch(instance, consumer.dispatch)
        await consumer(scope, receive, send)
        # It ends in good order: if by StopConsumer, then that is how its last message ended.
        dispatch.finish()

    return called


class _Dispatch:
    """The ``dispatch`` of one consumer."""

    __slots__ = ("_begun", "_dispatch", "_instance")

    def __init__(self, instance: Instance, dispatch: Callable[[Message], Awaitable[None]]) -> None:
        self._instance = instance
        self._dispatch = dispatch
        self._begun: list[str] = []

    async def __call__(self, message: Message) -> None:
        """Handle a message of the instance, or one of the channel layer."""
        entry_id = _id_of(message)
        self._begun.append(entry_id)
        with self._instance.held():
            await self._dispatch(message)
        self._begun.remove(entry_id)
        self._instance.acknowledge(entry_id)

    def finish(self) -> None:
        """Finish what was begun."""
        for entry_id in self._begun:
            self._instance.acknowledge(entry_id)


def _id_of(message: Message) -> str:
    """The entry's id; "" of a message that the channel layer brought."""
    about = message.get("wherry")
    return str(cast("Mapping[str, Any]", about).get("id")) if isinstance(about, Mapping) else ""
