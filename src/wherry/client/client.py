"""Client: what producers and readers do, for asyncio.

What `Client.replies` can tell about replies that are gone, and what nobody can:

- While following, a reader that was too slow is told exactly, from Redis 7 on. Redis 6 does not
  count, so there it is also told when just the last reply that it took was trimmed.
- A reader that comes back with an ``after`` that is not kept any more is told `RepliesTrimmed`,
  even if ``after`` was the very last reply that was trimmed, unless the ids show that nothing lay
  between.
- A stream that has vanished ``reply_ttl_s`` or longer after ``after`` has expired. Whether replies
  behind ``after`` expired with it nobody knows; nothing is raised. Who stays away for longer than
  that must look elsewhere for what was missed. A stream that has vanished sooner was deleted, or
  Redis lost it: `RepliesTrimmed`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Self, Unpack

from ..broker.connect import Store
from ..broker.wire import check_scope_id
from ..config import Config
from ..errors import MessageError, RequestTimeout
from ..model import EntryId, Message, Outgoing, Reply, Restarted
from ..tracing import find_tracer, producing
from .asking import Asking
from .bulk import Item, send_many
from .deadletters import DeadLetters
from .envelope import Envelope, RequestOptions, SendOptions, pack_envelope
from .followers import Followers
from .inbox import Inbox
from .replies import Replies, Wanted
from .sending import Sender
from .session import Session

_MOST_REPLICAS = 1_000
_ENTRY_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")


class Client:
    """Sends messages to scopes and reads their replies.

    Connects at first use, and adopts the partition count of the namespace; at work it looks again
    every few seconds, lest the namespace was flushed and has another one. Belongs to the event
    loop of its first use; `wherry.SyncClient` serves all threads. Close it with `aclose`, or use
    it as an asynchronous context manager.

    Of the Config it uses ``message_bytes``, ``backlog``, ``dedup_ttl_s``, ``in_flight`` and
    ``in_flight_bytes`` (messages that wait to be written, and replies that wait to be taken for
    one request), ``reply_length``, ``reply_ttl_s``, ``block_s`` and ``socket_timeout_s``. Give it
    the workers' values where those differ from the defaults.

    Attributes:
        dead_letters: what workers have given up; see `DeadLetters`.
    """

    __slots__ = ("_followers", "_inbox", "_sender", "_session", "dead_letters")

    def __init__(
        self,
        store: Store | str,
        *,
        namespace: str | None = None,
        partitions: int | None = None,
        config: Config | None = None,
    ) -> None:
        """Remember where to connect.

        Args:
            store: an open store, or its URL; one given by its URL is closed with the client.
            namespace: instead of the Config's, which is "wherry" by default.
            partitions: instead of the Config's; None adopts what the namespace has.
            config: settings; None for the defaults.

        Raises:
            ConfigError: a setting is out of range.
        """
        config = config or Config()
        if namespace is not None:
            config = replace(config, namespace=namespace)
        if partitions is not None:
            config = replace(config, partitions=partitions)
        self._session = Session(store, config)
        self._sender = Sender(self._session)
        self._inbox = Inbox(self._session, self._sender)
        self._followers = Followers(self._session)
        self.dead_letters = DeadLetters(self._session)

    async def send(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        replicas: int = 0,
        **options: Unpack[SendOptions],
    ) -> EntryId:
        """Send a message to a scope and return the id of its entry.

        What is sent in one tick of the loop shares a write. Messages to one scope are handled in
        the order of the calls. Waits while too many messages wait to be written. A call that is
        cancelled may have sent its message.

        Args:
            scope_id: whom it is for: UTF-8, at most 512 bytes, not starting with ``~``.
            message: the ASGI event: a dict with a ``type``, and what msgpack knows.
            replicas: return when so many replicas have it, too (``WAIT``), within
                ``replicas_timeout_s``; what is sent in the same write waits as well.
            **options: see `SendOptions`.

        Raises:
            MessageError: the message cannot be sent as it is; nothing was sent.
            NotReplicated: it was sent, and fewer replicas are known to have it.
            BacklogFull: the partition holds too many unfinished entries; nothing was sent.
            StoreUnavailable: it may or may not have been appended, as the text says. With a
                ``message_id`` this comes only after trying again for 15 s, and sending it again
                with the same id does no harm.
            WrongLoop: the client belongs to another event loop.
            WherryError: the store refuses the client; nothing was sent.
        """
        if (tracer := find_tracer()) is not None:
            namespace, given = self._session.config.namespace, options.get("headers")
            with producing(tracer, namespace, scope_id, given) as options["headers"]:
                return await self._send(scope_id, message, replicas, options)
        return await self._send(scope_id, message, replicas, options)

    async def _send(
        self, scope_id: str, message: Mapping[str, Any], replicas: int, options: SendOptions
    ) -> EntryId:
        session = self._session.enter()
        envelope = Envelope(scope_id=scope_id, message=message, **options)
        entry = pack_envelope(envelope, session.config.message_bytes, session.unix_s())
        return (await self._sender.send(entry, replicas=_check_replicas(replicas))).entry_id

    async def send_many(self, messages: Iterable[Item], *, replicas: int = 0) -> list[EntryId]:
        """Send many messages in large writes; return the ids of their entries in the same order.

        Messages to one scope are handled in the order given. The iterable is consumed as the
        messages are written.

        Args:
            messages: pairs of scope id and message, or `Envelope` objects.
            replicas: as in `send`, for all of them.

        Raises:
            WherryError: as `send` does. The error's ``accepted`` has, for each message taken so
                far, the id of its entry, or None if it was refused or its fate is not known.
                After `BacklogFull` that is all of them: only those of full partitions are missing.
                After `NotReplicated` it is all of them, and none is missing.
        """
        session = self._session.enter()
        return await send_many(self._sender, messages, session, _check_replicas(replicas))

    async def request(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[RequestOptions],
    ) -> list[Message]:
        """Send a message and return all replies to it, in order.

        With a ``message_id`` that was used before, the answer to its first sending is returned, as
        long as the replies are kept; that sending must have been a request, too.

        Args:
            scope_id: as in `send`.
            message: as in `send`.
            timeout_s: for all of it.
            **options: see `RequestOptions`.

        Raises:
            MessageFailed: it expired or was buried.
            RequestTimeout: no complete answer in time; the message may still be handled.
            WherryError: as `send` does.
        """
        entry = self._pack_request(scope_id, message, options, is_streamed=False)
        asking = Asking(self._session, self._inbox, self._followers)
        replies: list[Message] = []
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit, aclosing(asking.events(entry)) as events:
                async for event in events:
                    if isinstance(event, Restarted):
                        replies.clear()
                    elif event.message is not None:
                        replies.append(event.message)
        except TimeoutError as error:
            if limit.expired():
                raise RequestTimeout(asking.entry_id, timeout_s) from error
            raise
        return replies

    async def request_stream(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[Reply | Restarted]:
        """Send a message and yield the replies to it as the application sends them.

        Ends with the answer. `Restarted` says that the answer begins anew: a worker died in the
        midst of it. Iterate to the end, or close the generator (`contextlib.aclosing`).

        Args:
            scope_id: as in `send`.
            message: as in `send`.
            timeout_s: longest silence: before the first reply, and between two.
            **options: see `RequestOptions`.

        Yields:
            Replies with a message, and `Restarted`.

        Raises:
            MessageFailed: it expired or was buried.
            RequestTimeout: nothing came for ``timeout_s``; the message may still be handled.
            ReaderTooSlow: more replies wait to be taken than the client holds.
            WherryError: as `send` does.
        """
        entry = self._pack_request(scope_id, message, options, is_streamed=True)
        asking = Asking(self._session, self._inbox, self._followers)
        async with aclosing(asking.timed_events(entry, timeout_s)) as events:
            async for event in events:
                if isinstance(event, Restarted) or event.message is not None:
                    yield event

    async def replies(
        self,
        scope_id: str,
        *,
        after: str | None = None,
        follow: bool = False,
        heartbeat_s: float | None = None,
        cause: str | None = None,
    ) -> AsyncGenerator[Reply | Restarted | None]:
        """Read a scope's replies, kept and to come.

        End marks and errors without a message are replies, too (``message`` is None). Iterate to
        the end, or close the generator (`contextlib.aclosing`).

        What is missing is concluded from what is kept, as trimming and expiry leave no trace;
        the docstring of this module says what can be told apart and what not.

        Args:
            scope_id: whose replies.
            after: id of the last reply that was taken (a browser's ``Last-Event-ID``); None or
                "0-0" starts at the oldest kept.
            follow: go on with what comes; the client then outlasts failures of the store.
            heartbeat_s: yield None when there was nothing to yield for so long.
            cause: only the answer to the entry with this id, up to its end mark; it has one if
                it was sent with ``stream=True`` or as a request.

        Yields:
            Replies; None as heartbeat; `Restarted` when an answer begins anew (and when an answer
            begins behind an ``after`` that is not kept any more, as nobody knows if it does).

        Raises:
            RepliesTrimmed: replies that were asked for are gone.
            MessageError: scope id or ``after`` is malformed.
            StoreUnavailable: the store does not answer, and ``follow`` is off.
            WherryError: as `send` does.
        """
        session = self._session.enter()
        if after is not None and not _ENTRY_ID.fullmatch(after):
            raise MessageError(f"after is {after!r}, not a reply's id such as '1700000000000-0'")
        wanted = Wanted(
            scope_id=check_scope_id(scope_id),
            after=after,
            follow=follow,
            heartbeat_s=heartbeat_s,
            cause=cause,
        )
        async with aclosing(Replies(session, self._followers, wanted).events()) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Write what waits to be written, end every wait, delete the inbox, and disconnect.

        Calls under way raise `ClientClosed`. Does nothing the second time, or before first use.
        """
        if not self._session.is_used():
            self._session.shut()
            return
        self._session.enter().shut()
        await self._sender.aclose()
        await self._inbox.aclose()
        await self._followers.aclose()
        await self._session.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _pack_request(
        self,
        scope_id: str,
        message: Mapping[str, Any],
        options: RequestOptions,
        *,
        is_streamed: bool,
    ) -> Outgoing:
        session = self._session.enter()
        if (tracer := find_tracer()) is not None:
            # Not until its answer: that is read by a generator, between whose steps all may happen.
            namespace, given = session.config.namespace, options.get("headers")
            with producing(tracer, namespace, scope_id, given) as options["headers"]:
                pass
        envelope = Envelope(
            scope_id=scope_id,
            message=message,
            inbox=self._inbox.name,
            stream=is_streamed,
            **options,
        )
        limit_bytes = session.config.message_bytes
        return pack_envelope(envelope, limit_bytes, session.unix_s(), marks_end=True)


def _check_replicas(replicas: int) -> int:
    if not 0 <= replicas <= _MOST_REPLICAS:
        raise MessageError(f"replicas is {replicas}; it must lie between 0 and {_MOST_REPLICAS}")
    return replicas
