"""Envelope: a message with everything that a producer may say about it, and how it is packed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from ..broker.wire import check_scope_id, pack, pack_message
from ..errors import MessageError
from ..model import RESERVED_SCOPE_KEYS, Outgoing

_NAME_BYTES = 512


class RequestOptions(TypedDict, total=False):
    """What may be said about a message that an answer is awaited for.

    Attributes:
        channel: the route: which consumer of the application gets it, ``scope["channel"]``.
        scope_keys: further keys of the application's scope. They are part of every message that
            needs them: any message may have to create the instance, and keys that differ from
            the running instance's end it and create another.
        headers: travel beside the message, such as ``traceparent``; ``message["wherry"]`` has them.
        message_id: makes the sending idempotent: of all sendings with one id only the first is
            appended, and all return its entry id, for ``dedup_ttl_s`` (a day). Use an id for one
            message to one scope only. With it the client sends again by itself when the store
            does not answer.
        expires_s: seconds after which the message is not handled any more but answered with the
            error ``Expired``. Counted by this machine's clock, compared with the worker's.
    """

    channel: str | None
    scope_keys: Mapping[str, Any] | None
    headers: Mapping[str, Any] | None
    message_id: str | None
    expires_s: float | None


class SendOptions(RequestOptions, total=False):
    """What may be said about a message.

    Attributes:
        inbox: name of an inbox that gets a copy of each reply.
        stream: write replies as the application sends them, instead of all when it has finished
            the message, and mark the end of the answer.
    """

    inbox: str | None
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message for `send_many` that needs more than scope and message.

    Attributes:
        scope_id: whom it is for: UTF-8, at most 512 bytes, not starting with ``~``.
        message: the ASGI event: a dict with a ``type``.
        channel: as in `RequestOptions`, as are those that follow.
        scope_keys: further keys of the scope.
        headers: headers.
        message_id: idempotency key.
        expires_s: seconds until it is not handled any more.
        inbox: as in `SendOptions`.
        stream: as in `SendOptions`.
    """

    scope_id: str
    message: Mapping[str, Any]
    channel: str | None = None
    scope_keys: Mapping[str, Any] | None = None
    headers: Mapping[str, Any] | None = None
    message_id: str | None = None
    expires_s: float | None = None
    inbox: str | None = None
    stream: bool = False


def pack_envelope(
    envelope: Envelope, limit_bytes: int, unix_s: float, *, marks_end: bool = False
) -> Outgoing:
    """Check a message and pack it, once.

    Args:
        envelope: the message.
        limit_bytes: largest message.
        unix_s: now, for what expires.
        marks_end: ask for the end mark although the replies are not streamed.

    Raises:
        MessageError: something in it cannot be sent.
    """
    return Outgoing(
        scope_id=check_scope_id(envelope.scope_id),
        message=pack_message(envelope.message, limit_bytes),
        scope_keys=_pack_scope_keys(envelope.channel, envelope.scope_keys),
        inbox=_check_name(envelope.inbox, "inbox"),
        headers=_pack_headers(envelope.headers),
        mark=2 if envelope.stream else 1 if marks_end else 0,
        expires_unix_ms=_expiry_unix_ms(envelope.expires_s, unix_s),
        message_id=_check_name(envelope.message_id, "message_id"),
    )


def pack_plain(scope_id: str, message: Mapping[str, Any], limit_bytes: int) -> Outgoing:
    """The same for a message with nothing else to say about it."""
    return Outgoing(scope_id=check_scope_id(scope_id), message=pack_message(message, limit_bytes))


def _pack_scope_keys(channel: str | None, scope_keys: Mapping[str, Any] | None) -> bytes:
    if channel is None and not scope_keys:
        return b""
    keys = dict(scope_keys or {})
    if channel is not None:
        if keys.setdefault("channel", channel) != channel:
            raise MessageError(
                f"channel is {channel!r} but scope_keys say {keys['channel']!r}; leave one out"
            )
        _check_name(channel, "channel")
    forbidden = sorted(RESERVED_SCOPE_KEYS.intersection(keys))
    if forbidden:
        raise MessageError(
            f"scope_keys may not set {', '.join(forbidden)}; the worker does, use another name"
        )
    if keys.get("type", "channel") != "channel":
        raise MessageError(f"scope_keys ask for type {keys['type']!r}; only 'channel' is served")
    for key in keys:
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller's
            raise MessageError(f"scope key {key!r} is not a str")
    # Workers compare the bytes: the same keys in another order must not end the instance.
    return pack(dict(sorted(keys.items())), "scope_keys")


def _pack_headers(headers: Mapping[str, Any] | None) -> bytes:
    return pack(dict(headers), "headers") if headers else b""


def _expiry_unix_ms(expires_s: float | None, unix_s: float) -> int:
    if expires_s is None:
        return 0
    if not (expires_s > 0 and math.isfinite(expires_s)):
        raise MessageError(f"expires_s is {expires_s}; it must be seconds above 0")
    return round((unix_s + expires_s) * 1000)


def _check_name(name: str | None, what: str) -> str:
    if name is None:
        return ""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise MessageError(f"{what} {name!r} is not UTF-8") from error
    if not 1 <= size <= _NAME_BYTES:
        raise MessageError(f"{what} has {size} bytes; it must have 1 to {_NAME_BYTES}")
    return name
