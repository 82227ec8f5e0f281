"""Link: sends commands to a server and returns raw answers (RESP2, bytes).

Every call raises `StoreUnavailable` when it is not known to have been carried out,
`StoreRefused` for want of rights, and `StoreError` for any other error answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Argument = str | bytes | int
Command = Sequence[Argument]


class Link(Protocol):
    """One client of a server."""

    @property
    def connects(self) -> int:
        """How often a connection was made; that happens in silence."""
        ...

    @property
    def client_id(self) -> int | None:
        """Number of the newest connection as the server counts, None if it will not tell.

        With one call at a time there is one connection.
        """
        ...

    @property
    def joins_slots(self) -> bool:
        """Whether one script may touch the keys of several partitions, as one server has all."""
        ...

    async def call(self, *command: Argument) -> Any:
        """Send one command and return its answer."""
        ...

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Send many commands in one write; an error answer stands in the list as a `WherryError`.

        Raises:
            StoreUnavailable: the connection broke; any of them may have been carried out.
        """
        ...

    async def reconnect(self) -> None:
        """Close all connections, for the next call to make others; calls under way fail."""
        ...

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        ...
