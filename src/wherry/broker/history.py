"""History: notices, on each new connection, when a server's data may have gone back in time.

A server that was restarted or replaced may lack what the last one acknowledged. What a worker
decided before must not be written there: only leases and durable states would refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis.exceptions as redis_errors

from ..errors import StoreUnavailable

_NAMED = (b"run_id", b"master_replid", b"master_replid2")


class OtherHistory(StoreUnavailable):
    """The server that answers is not the one that a call was meant for; the next call is its."""


class Connected(Protocol):
    """What the past asks of a link."""

    async def reconnect(self) -> None:
        """Close all connections, for the next call to make others."""
        ...


class Meeting(Protocol):
    """What a link tells of the servers that it meets; see `Past`."""

    async def meet(self, history: str, link: Connected) -> None:
        """A link has connected to a server with this history; nothing else was sent yet."""
        ...


class Past:
    """The history that a worker knows, shared by its links.

    Attributes:
        on_other: called when a server with another history is met, before anything is sent to it.
        links: connections of the worker; they may still lead to the former server.
    """

    __slots__ = ("_known", "links", "on_other")

    def __init__(self) -> None:
        """Know none: the first that is met is taken for the right one."""
        self.on_other: Callable[[], None]
        self.links: Sequence[Connected] = ()
        self._known: str | None = None

    async def meet(self, history: str, link: Connected) -> None:
        """A link has connected to a server with this history."""
        known, self._known = self._known, history
        if known in (None, history):
            return
        self.on_other()
        # An old primary that goes on, cut off from the others, would be read for ever.
        for other in self.links:
            if other is not link:
                await other.reconnect()


def is_heir(history: str, former: str) -> bool:
    """Whether a server goes on with what another one had passed on to it, its replica before."""
    _, replid, before, *_ = (*history.split(" "), "", "")
    _, former_replid, *_ = (*former.split(" "), "")
    return former_replid in (replid, before)


async def read_history(connection: Any) -> str:
    """Name the history of the server behind one of redis-py's connections.

    Where INFO is forbidden all histories have one name.
    """
    await connection.send_command("INFO")
    try:
        info: bytes = await connection.read_response()
    except redis_errors.ResponseError:
        return ""
    return name_history(info)


def name_history(info: bytes) -> str:
    """Name the history of the server that has answered so to INFO."""
    pairs = (line.partition(b":") for line in info.splitlines())
    fields = {name: value for name, _, value in pairs}
    return b" ".join(fields.get(name, b"") for name in _NAMED).decode()
