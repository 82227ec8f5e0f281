"""The wire protocol: key names and the fields of entries, as ``docs/protocol.md`` tells them.

How input entries are read stands in `wherry.broker.entries`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from ..errors import MessageError
from ..model import EntryId, Outgoing, Partition, Reply, ScopeId

PROTOCOL = 1
"""Version of the wire protocol that this release writes and reads."""
SCOPE_ID_BYTES = 512
"""Longest scope id."""

NOT_MSGPACK = (msgpack.UnpackException, ValueError, TypeError, RecursionError)
"""What msgpack raises for bytes that are none of its own, and for a list or a map as a key."""

_packer = msgpack.Packer(use_bin_type=True)
_NOT_PACKABLE = (TypeError, ValueError, OverflowError, RecursionError)
_FLOAT = 0xCB
"""First byte of a packed float. To look for one byte costs a tenth of looking for ``bytes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a namespace is.

    Attributes:
        partitions: number of partitions.
        generation: names this life of the data; another one means Redis lost it.
    """

    partitions: int
    generation: str


class Keys:
    """Names of all keys of one namespace; each key of a partition carries its hash tag."""

    __slots__ = (
        "_entries",
        "_of_owner",
        "control",
        "joined",
        "members",
        "meta",
        "namespace",
        "released",
    )

    def __init__(self, namespace: str) -> None:
        """Derive the names that belong to no partition."""
        self.namespace = namespace
        self.meta = f"{{{namespace}}}:meta"
        self.members = f"{{{namespace}}}:members"
        self.joined = f"{{{namespace}}}:joined"
        self.released = f"{{{namespace}}}:released"
        self.control = f"{{{namespace}}}:control"
        # They are asked for with each read and each commit.
        self._entries: dict[Partition, str] = {}
        self._of_owner: dict[Partition, tuple[str, ...]] = {}

    def member(self, worker_id: str) -> str:
        """Hash in which a worker describes itself."""
        return f"{{{self.namespace}}}:member:{worker_id}"

    def answer(self, request_id: str) -> str:
        """List of answers to what an operator asks."""
        return f"{{{self.namespace}}}:answer:{request_id}"

    def entries(self, partition: Partition) -> str:
        """Input stream: exactly the unfinished entries."""
        name = self._entries.get(partition)
        if name is None:
            name = self._entries[partition] = f"{{{self.namespace}:{partition}}}:in"
        return name

    def of_owner(self, partition: Partition) -> tuple[str, ...]:
        """Those that each commit of its owner names: entries, lease, attempts, dead letters."""
        names = self._of_owner.get(partition)
        if names is None:
            names = self._of_owner[partition] = (
                self.entries(partition),
                self.lease(partition),
                self.attempts(partition),
                self.dead(partition),
            )
        return names

    def lease(self, partition: Partition) -> str:
        """Hash that says who owns the partition."""
        return f"{{{self.namespace}:{partition}}}:lease"

    def replies(self, partition: Partition, scope_id: str) -> str:
        """Reply stream of a scope."""
        return f"{{{self.namespace}:{partition}}}:out:{scope_id}"

    def inbox(self, partition: Partition, inbox: str) -> str:
        """Stream of copies for a waiting client."""
        return f"{{{self.namespace}:{partition}}}:out:~{inbox}"

    def state(self, partition: Partition, scope_id: str) -> str:
        """Hash of a scope's durable state."""
        return f"{{{self.namespace}:{partition}}}:scope:{scope_id}"

    def attempts(self, partition: Partition) -> str:
        """Hash of entries that failed."""
        return f"{{{self.namespace}:{partition}}}:attempts"

    def sent(self, partition: Partition, message_id: str) -> str:
        """Entry id of an idempotent send."""
        return f"{{{self.namespace}:{partition}}}:sent:{message_id}"

    def dead(self, partition: Partition) -> str:
        """Dead letters."""
        return f"{{{self.namespace}:{partition}}}:dead"


def pack(value: object, what: str, name: str = "") -> bytes:
    """Pack a value as msgpack.

    Raises:
        MessageError: a value that does not travel: NaN or infinity, an integer beyond 64 bits,
            a map key or an object that msgpack does not know. ``what`` and ``name`` tell in the
            text which one it is; they are put together only then.
    """
    try:
        data = _packer.pack(value)
    except _NOT_PACKABLE as error:
        raise _refusal(error, what, name) from error
    if _FLOAT in data:
        _refuse_odd_floats(data, value, what, name)
    return data


def pack_message(message: Mapping[str, Any], limit_bytes: int) -> bytes:
    """Pack an ASGI event.

    Raises:
        MessageError: no ``type`` of type str, a value that does not travel, or too large.
    """
    kind = message.get("type")
    if type(kind) is not str:
        kind = check_type(kind)
    return pack_event(kind, message, limit_bytes)


def check_type(kind: object) -> str:
    """The ``type`` of an ASGI event; raises MessageError if it is no text."""
    if not isinstance(kind, str):
        raise MessageError("a message must be a dict with a 'type' of type str")
    return kind


def pack_event(kind: str, message: Mapping[str, Any], limit_bytes: int) -> bytes:
    """The same as `pack_message` for an event whose type is known."""
    try:  # as `pack` does; each message comes through here
        data = _packer.pack(message)
    except _NOT_PACKABLE as error:
        raise _refusal(error, "message", kind) from error
    if _FLOAT in data:
        _refuse_odd_floats(data, message, "message", kind)
    if len(data) > limit_bytes:
        raise MessageError(
            f"message {kind!r} has {len(data)} bytes, more than {limit_bytes}; "
            "send a reference instead, or raise message_bytes"
        )
    return data


def unpack(data: bytes) -> Any:
    """Unpack msgpack; str stays str, bytes stay bytes.

    Raises:
        ValueError: not msgpack, or an extension type.
    """
    try:
        return msgpack.unpackb(data, strict_map_key=False, ext_hook=refuse_extension)
    except NOT_MSGPACK as error:
        raise ValueError(str(error) or type(error).__name__) from error


def check_scope_id(scope_id: str) -> ScopeId:
    """Check a scope id.

    Raises:
        MessageError: empty, not encodable as UTF-8, longer than 512 bytes, or starts with "~".
    """
    problem = scope_id_problem(scope_id)
    if problem:
        raise MessageError(f"scope id {scope_id!r} {problem}")
    return ScopeId(scope_id)


def outgoing_fields(outgoing: Outgoing) -> list[str | bytes]:
    """Flat field list of an input entry: name, value, name, value."""
    fields: list[str | bytes] = ["s", outgoing.scope_id, "m", outgoing.message]
    further = outgoing.scope_keys or outgoing.inbox or outgoing.headers or outgoing.message_id
    if not (further or outgoing.mark or outgoing.expires_unix_ms):
        return fields  # as nearly all are
    for name, value in (
        ("c", outgoing.scope_keys),
        ("r", outgoing.inbox),
        ("h", outgoing.headers),
        ("w", str(outgoing.mark) if outgoing.mark else ""),
        ("x", str(outgoing.expires_unix_ms) if outgoing.expires_unix_ms else ""),
        ("k", outgoing.message_id),
    ):
        if value:
            fields += (name, value)
    return fields


def read_reply(entry_id: bytes, flat: Sequence[bytes]) -> Reply:
    """Decode an entry of a reply stream or inbox.

    Raises:
        ValueError: not written by a worker.
    """
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    message = fields.get(b"m")
    count = fields.get(b"z")
    error = fields.get(b"e")
    headers = fields.get(b"h")
    return Reply(
        id=EntryId(entry_id.decode()),
        scope_id=ScopeId(fields.get(b"s", b"").decode("utf-8", "replace")),
        message=None if message is None else unpack(message),
        cause=fields.get(b"i", b"").decode(),
        index=int(fields.get(b"n", b"0")),
        attempt=fields.get(b"a", b"").decode(),
        count=None if count is None else int(count),
        error=None if error is None else error.decode("utf-8", "replace"),
        headers={} if headers is None else unpack(headers),
    )


def _refusal(error: Exception, what: str, name: str) -> MessageError:
    _packer.reset()
    return MessageError(
        f"{_called(what, name)} cannot be packed: {error}; use None, bool, int (64 bits), "
        "float, str, bytes, list and dict only"
    )


def _called(what: str, name: str) -> str:
    return f"{what} {name!r}" if name else what


def scope_id_problem(scope_id: str) -> str:
    """What is wrong with a scope id, "" if nothing is."""
    if not scope_id:
        return "is missing or empty"
    if scope_id.startswith("~"):
        return "may not start with '~'"
    try:
        size = len(scope_id.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"has {size} bytes, more than {SCOPE_ID_BYTES}" if size > SCOPE_ID_BYTES else ""


def _refuse_odd_floats(data: bytes, value: object, what: str, name: str) -> None:
    """NaN and the infinities begin with cb 7f or cb ff; without these bytes there are none."""
    if b"\xcb\x7f" in data or b"\xcb\xff" in data:
        _refuse_odd(value, _called(what, name))


def _refuse_odd(value: object, what: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MessageError(f"{what} holds {value}, which JSON and many languages cannot read")
    elif isinstance(value, Mapping):
        for item in cast("Mapping[object, object]", value).values():
            _refuse_odd(item, what)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            _refuse_odd(item, what)


def refuse_extension(code: int, _data: bytes) -> Any:
    """For msgpack: extension types do not travel."""
    raise ValueError(f"extension type {code} is not allowed")
