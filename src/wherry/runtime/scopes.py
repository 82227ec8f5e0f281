"""Scopes: what an application is called with for a scope of type ``channel``."""

from __future__ import annotations

from typing import Any

from ..broker.wire import unpack
from ..config import Config
from .asgi import ACK, ASGI_VERSIONS, EXTENSIONS


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
        self._versions = dict(ASGI_VERSIONS)
        self._extensions = {
            name: about
            for name, about in EXTENSIONS.items()
            if name != ACK or config.ack_mode != "off"
        }

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
