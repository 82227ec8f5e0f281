"""Reading input entries: from the field list of a stream to an `Entry`, or to what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from reprlib import repr as _shown  # short, and shallow, whatever a producer wrote
from typing import Any, cast

from msgpack import unpackb

from ..model import (
    PLAIN,
    RESERVED_SCOPE_KEYS,
    BadEntry,
    Entry,
    EntryId,
    Extras,
    Message,
    Partition,
    ScopeId,
)
from .wire import NOT_MSGPACK, refuse_extension, scope_id_problem, unpack

# Ids as they are read: to call a `NewType` costs as much as to decode.
read_id = cast("Callable[[bytes], EntryId]", bytes.decode)
read_scope_id = cast("Callable[[bytes], ScopeId]", bytes.decode)


def read_entry(
    partition: Partition,
    entry_id: EntryId,
    flat: Sequence[bytes],
    limit_bytes: int,
    known: Container[ScopeId] = (),
) -> Entry | BadEntry:
    """Decode an input entry from its flat field list; never raises for what a producer wrote.

    Args:
        partition: where it was read.
        entry_id: its id.
        flat: name, value, name, value.
        limit_bytes: most bytes of a message.
        known: scope ids that need not be checked again.
    """
    if len(flat) == 4:
        # A scope and a message and no more, as most are: to look for the rest costs as much.
        name, raw_scope, field, body = flat
        if name == b"s" and field == b"m":
            size = len(raw_scope) + len(body) + 2
            try:
                scope = read_scope_id(raw_scope)
                message = unpackb(body, strict_map_key=False, ext_hook=refuse_extension)
                if (
                    type(message["type"]) is str
                    and scope
                    and scope[0] != "~"
                    and (scope in known or not scope_id_problem(scope))
                    and size <= limit_bytes
                ):
                    entry = Entry()
                    entry.id = entry_id
                    entry.partition = partition
                    entry.scope_id = scope
                    entry.message = message
                    entry.body = body
                    entry.size_bytes = size
                    entry.extras = PLAIN
                    return entry
            except (*NOT_MSGPACK, TypeError, LookupError):
                pass  # whatever it is, it is told below
    return _read_any(partition, entry_id, flat, limit_bytes)


def _read_any(
    partition: Partition, entry_id: EntryId, flat: Sequence[bytes], limit_bytes: int
) -> Entry | BadEntry:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    size = sum(map(len, flat))
    scope = fields.get(b"s", b"").decode("utf-8", "surrogateescape")
    problem = scope_id_problem(scope)
    if problem:
        scope, problem = "", f"scope id {problem}; set field 's' when appending"
    elif size > limit_bytes + 65536:
        problem = f"{size} bytes, more than {limit_bytes}"
    else:
        try:
            return _read_fields(partition, entry_id, ScopeId(scope), fields, size)
        except ValueError as error:
            problem = str(error)
    return BadEntry(
        id=entry_id,
        partition=partition,
        reason=problem,
        scope_id=ScopeId(scope),
        inbox=fields.get(b"r", b"").decode("utf-8", "replace"),
        size_bytes=size,
    )


def _read_fields(
    partition: Partition, number: EntryId, scope: ScopeId, fields: dict[bytes, bytes], size: int
) -> Entry:
    body = fields.get(b"m") or fields.get(b"j") or b""
    message = read_body(body)
    keys = fields.get(b"c", b"")
    if keys:
        _check_scope_keys(keys)
    headers = fields.get(b"h")
    entry = Entry()
    entry.id = number
    entry.partition = partition
    entry.scope_id = scope
    entry.message = message
    entry.body = body
    entry.size_bytes = size
    extras = Extras(
        scope_keys=keys,
        inbox=fields.get(b"r", b"").decode("utf-8", "replace"),
        headers=_read_map(headers, "h") if headers else None,
        mark=_read_number(fields, b"w"),
        expires_unix_ms=_read_number(fields, b"x"),
        message_id=fields.get(b"k", b"").decode("utf-8", "replace"),
    )
    entry.extras = PLAIN if extras == PLAIN else extras
    return entry


def read_body(body: bytes) -> Message:
    """The message of an input entry: field ``m`` (msgpack) or ``j`` (JSON).

    A msgpack map and a JSON object never start with the same byte.

    Raises:
        ValueError: not a map with a ``type`` of type str.
    """
    if not body:
        raise ValueError("no message; set field 'm' (msgpack) or 'j' (JSON)")
    is_map = 0x80 <= body[0] <= 0x8F or body[0] in (0xDE, 0xDF)
    message = _read_map(body, "m") if is_map else _read_json(body)
    if not isinstance(message.get("type"), str):
        raise ValueError("the message has no 'type' of type str")
    return message


def _read_json(text: bytes) -> Message:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the message is neither a msgpack map nor JSON: {error}") from error
    if not isinstance(message, dict):
        raise ValueError("the message is not a map (field 'm': msgpack, 'j': a JSON object)")
    return cast("Message", message)


def _read_map(packed: bytes, name: str) -> dict[str, Any]:
    try:
        value = unpack(packed)
    except ValueError as error:
        raise ValueError(f"field '{name}' is not msgpack: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"field '{name}' is not a map")
    return cast("dict[str, Any]", value)


def _check_scope_keys(packed: bytes) -> None:
    keys = _read_map(packed, "c")
    forbidden = sorted(RESERVED_SCOPE_KEYS.intersection(keys))
    if forbidden:
        raise ValueError(f"field 'c' may not set {', '.join(forbidden)}")
    if keys.get("type", "channel") != "channel":
        raise ValueError(
            f"field 'c' asks for scope type {_shown(keys['type'])}; only 'channel' is served"
        )


def _read_number(fields: Mapping[bytes, bytes], name: bytes) -> int:
    text = fields.get(name)
    if not text:
        return 0
    if not text.isdigit():
        raise ValueError(f"field '{name.decode()}' is not a number")
    return int(text)
