"""Wherry: ASGI applications as a fleet of stateless workers on Redis Streams."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client, Envelope, RequestOptions, SendOptions, SyncClient
    from .config import Config
    from .errors import (
        ApplicationError,
        BacklogFull,
        ClientClosed,
        ConfigError,
        HandlerTimeout,
        MessageError,
        MessageFailed,
        NotReplicated,
        ReaderTooSlow,
        RepliesTooLarge,
        RepliesTrimmed,
        RequestTimeout,
        ScopeClosed,
        StartupFailed,
        StoreError,
        StoreIncompatible,
        StoreNotFound,
        StoreRefused,
        StoreUnavailable,
        WherryError,
        WrongLoop,
    )
    from .model import DeadLetter, Reply, Restarted
    from .runtime.consumers import acknowledging
    from .runtime.server import StatelessServer
    from .worker import Worker
else:
    # Hidden from type checkers, which would take any name for a public one.
    from .exports import find_export as __getattr__  # noqa: F401 -- Python looks for it
    from .exports import list_exports as __dir__  # noqa: F401 -- the same

__all__ = [
    "ApplicationError",
    "BacklogFull",
    "Client",
    "ClientClosed",
    "Config",
    "ConfigError",
    "DeadLetter",
    "Envelope",
    "HandlerTimeout",
    "MessageError",
    "MessageFailed",
    "NotReplicated",
    "ReaderTooSlow",
    "RepliesTooLarge",
    "RepliesTrimmed",
    "Reply",
    "RequestOptions",
    "RequestTimeout",
    "Restarted",
    "ScopeClosed",
    "SendOptions",
    "StartupFailed",
    "StatelessServer",
    "StoreError",
    "StoreIncompatible",
    "StoreNotFound",
    "StoreRefused",
    "StoreUnavailable",
    "SyncClient",
    "WherryError",
    "Worker",
    "WrongLoop",
    "acknowledging",
]
