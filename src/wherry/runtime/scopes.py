"""Scopes: what an application is called with for a scope of type ``channel``."""

from __future__ import annotations

from typing import Any

from ..broker.wire import unpack
from ..config import Config
from .asgi import ACK, ASGI_VERSIONS, EXTENSIONS


def _refuse(*_: object, **__: object) -> None:
    raise TypeError(
        "this is the same for all instances and cannot be changed; put a changed copy in its "
        "place, as in scope['extensions'] = {**scope['extensions'], ...}"
    )


_REFUSE: Any = _refuse  # stands for methods of many signatures


class Shared(dict[str, Any]):
    """A part of all scopes or messages of a worker, which none may change for the others.

    What ASGI asks for anyhow: who changes something in a scope copies it before.
    https://asgi.readthedocs.io/en/latest/specs/main.html#middleware
    """

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _REFUSE
    update = setdefault = pop = popitem = clear = _REFUSE

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        """Copies, deep ones too, are plain dicts."""
        return dict, (dict(self),)


NO_HEADERS = Shared()
"""Those of all messages that have none."""


class Scopes:
    """Makes the scopes of one worker's instances.

    What all of them say alike is kept once: there are as many as there are idle instances.

    Attributes:
        lifespan_state: what the application put into its lifespan's state; each scope has a copy.
    """

    __slots__ = ("_channel", "_extensions", "_versions", "lifespan_state")

    def __init__(self, config: Config) -> None:
        """Offer what the settings allow."""
        self.lifespan_state: dict[str, Any] = {}
        self._channel = config.channel
        self._versions = Shared(ASGI_VERSIONS)
        self._extensions = Shared(
            {
                name: about
                for name, about in EXTENSIONS.items()
                if name != ACK or config.ack_mode != "off"
            }
        )

    def make(self, scope_id: str, keys: bytes) -> dict[str, Any]:
        """A fresh scope; ``keys`` are the packed scope keys of the entry, b"" if none."""
        scope: dict[str, Any] = {
            "type": "channel",
            "channel": self._channel,
            "scope_id": scope_id,
            "asgi": self._versions,
            "state": dict(self.lifespan_state),
            "extensions": self._extensions,
        }
        if keys:
            scope |= unpack(keys)
        return scope
