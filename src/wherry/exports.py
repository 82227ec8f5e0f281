"""The public names of the package, each brought from its module when it is first asked for.

``import wherry`` alone costs next to nothing: what is started every few seconds, as
``wherry health`` is, must not pay for clients and workers that it does not use.
"""

from __future__ import annotations

import sys
from importlib import import_module

_HOMES: dict[str, tuple[str, ...]] = {
    "client": ("Client", "Envelope", "RequestOptions", "SendOptions", "SyncClient"),
    "config": ("Config",),
    "errors": (
        "ApplicationError",
        "BacklogFull",
        "ClientClosed",
        "ConfigError",
        "HandlerTimeout",
        "MessageError",
        "MessageFailed",
        "NotReplicated",
        "ReaderTooSlow",
        "RepliesTooLarge",
        "RepliesTrimmed",
        "RequestTimeout",
        "ScopeClosed",
        "StartupFailed",
        "StoreError",
        "StoreIncompatible",
        "StoreNotFound",
        "StoreRefused",
        "StoreUnavailable",
        "WherryError",
        "WrongLoop",
    ),
    "model": ("DeadLetter", "Reply", "Restarted"),
    "runtime.consumers": ("acknowledging",),
    "runtime.server": ("StatelessServer",),
    "worker": ("Worker",),
}
_PACKAGE = __name__.rpartition(".")[0]


def find_export(name: str) -> object:
    """The public object of that name; kept in the package, so that it is asked for once.

    Raises:
        AttributeError: there is none.
    """
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(f"{_PACKAGE}.{module}"), name)
            setattr(sys.modules[_PACKAGE], name, found)
            return found
    raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")


def list_exports() -> list[str]:
    """All names of the package, for ``dir()``."""
    return sorted(
        {*vars(sys.modules[_PACKAGE]), *(one for names in _HOMES.values() for one in names)}
    )
