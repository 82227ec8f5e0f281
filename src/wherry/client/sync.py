"""SyncClient: the same for code without an event loop: Django views, scripts, threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Self, Unpack

from ..broker.connect import Store
from ..config import Config
from ..errors import ClientClosed
from ..model import EntryId, Message, Reply, Restarted
from .background import Background
from .bulk import Item
from .client import Client
from .envelope import RequestOptions, SendOptions
from .sync_deadletters import SyncDeadLetters

_EXIT_S = 2.0
_clients: weakref.WeakSet[SyncClient] = weakref.WeakSet()
_parents: list[Background] = []
"""Of the parent process: kept for ever, so that no finalizer touches what it still uses."""


class SyncClient:
    """`Client` for any thread: each call blocks the calling thread until it is done.

    Connects at first use, with one background thread for all threads of the process; after a
    fork the child gets its own. It may also be called in the thread of a running event loop,
    which stands still meanwhile: use `Client` there. Close it with `close`, or use it as a
    context manager; otherwise it is closed with the process.
    """

    __slots__ = ("__weakref__", "_background", "_is_closed", "_lock", "_make")

    def __init__(
        self,
        store: Store | str,
        *,
        namespace: str | None = None,
        partitions: int | None = None,
        config: Config | None = None,
    ) -> None:
        """Remember where to connect; arguments and errors as for `Client`."""

        def make() -> Client:
            return Client(store, namespace=namespace, partitions=partitions, config=config)

        make()  # settings are refused here and not at first use
        self._make = make
        self._lock = threading.Lock()
        self._background: Background | None = None
        self._is_closed = False
        _clients.add(self)

    @property
    def dead_letters(self) -> SyncDeadLetters:
        """What workers have given up."""
        return SyncDeadLetters(self._open)

    def send(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        replicas: int = 0,
        **options: Unpack[SendOptions],
    ) -> EntryId:
        """Send a message to a scope and return the id of its entry; see `Client.send`."""
        return self._open().run(
            lambda client: client.send(scope_id, message, replicas=replicas, **options)
        )

    def send_many(self, messages: Iterable[Item], *, replicas: int = 0) -> list[EntryId]:
        """Send many messages in large writes; see `Client.send_many`.

        The iterable is consumed in the background thread.
        """
        return self._open().run(lambda client: client.send_many(messages, replicas=replicas))

    def request(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[RequestOptions],
    ) -> list[Message]:
        """Send a message and return all replies to it, in order; see `Client.request`."""
        return self._open().run(
            lambda client: client.request(scope_id, message, timeout_s=timeout_s, **options)
        )

    def request_stream(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[RequestOptions],
    ) -> Generator[Reply | Restarted, None, None]:
        """Send a message and yield its replies as they come; see `Client.request_stream`."""
        yield from self._open().iterate(
            lambda client: client.request_stream(scope_id, message, timeout_s=timeout_s, **options)
        )

    def replies(
        self,
        scope_id: str,
        *,
        after: str | None = None,
        follow: bool = False,
        heartbeat_s: float | None = None,
        cause: str | None = None,
    ) -> Generator[Reply | Restarted | None, None, None]:
        """Read a scope's replies, kept and to come; see `Client.replies`."""
        yield from self._open().iterate(
            lambda client: client.replies(
                scope_id, after=after, follow=follow, heartbeat_s=heartbeat_s, cause=cause
            )
        )

    def close(self) -> None:
        """Close the client and end its thread; calls of other threads raise `ClientClosed`."""
        with self._lock:
            self._is_closed = True
            background, self._background = self._background, None
        if background is not None:
            background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self) -> Background:
        with self._lock:
            if self._is_closed:
                raise ClientClosed("this client was closed; make another one")
            if self._background is None:
                self._background = Background(self._make())
                weakref.finalize(self, self._background.close, _EXIT_S)
            return self._background

    def forget_parent(self) -> None:
        """In a forked child: the parent's thread and connections are not ours."""
        self._lock = threading.Lock()
        if self._background is not None:
            _parents.append(self._background)
            self._background = None


def _after_fork() -> None:
    for client in list(_clients):
        client.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
