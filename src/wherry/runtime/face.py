"""Face: what user code sees and changes of a server, as the parts behind it need it."""

from __future__ import annotations

from typing import Any, Protocol

from ..model import Application, Message


class Face(Protocol):
    """A `wherry.StatelessServer`.

    Attributes:
        application: ASGI 3 or ASGI 2.
    """

    application: Application

    @property
    def max_applications(self) -> int:
        """Most instances."""
        ...

    def get_or_create_application_instance(self, scope_id: Any, scope: Any) -> Any:
        """The inbox of a scope."""
        ...

    def delete_oldest_application_instance(self) -> None:
        """End the least recently used instance."""
        ...

    async def application_send(self, scope: Any, message: Message) -> None:
        """Take a message that an application sends."""
        ...
