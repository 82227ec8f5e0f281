"""The wire protocol: what is written is read, and nothing that a producer wrote raises."""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.broker.entries import read_entry
from wherry.broker.wire import (
    Keys,
    check_scope_id,
    outgoing_fields,
    pack,
    pack_message,
    read_reply,
    unpack,
)
from wherry.errors import MessageError
from wherry.model import (
    PLAIN,
    BadEntry,
    Entry,
    EntryId,
    Outgoing,
    Partition,
    ScopeId,
    partition_of,
)

LIMIT = 1000
ZERO = Partition(0)


def read(*fields: str | bytes, limit: int = LIMIT) -> Entry | BadEntry:
    flat = [one.encode() if isinstance(one, str) else one for one in fields]
    return read_entry(ZERO, EntryId("5-1"), flat, limit)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(scope=st.text(min_size=1), partitions=st.integers(1, 4096))
def test_partition_is_the_crc_of_the_utf_8_bytes(scope: str, partitions: int):
    assert partition_of(scope, partitions) == zlib.crc32(scope.encode()) % partitions


def test_keys_of_a_partition_carry_its_tag():
    keys = Keys("ns")
    of_partition = [
        keys.entries(ZERO),
        keys.lease(ZERO),
        keys.attempts(ZERO),
        keys.dead(ZERO),
        keys.replies(ZERO, "a{b}"),
        keys.inbox(ZERO, "x"),
        keys.state(ZERO, "s"),
        keys.sent(ZERO, "m"),
    ]
    assert all(key.startswith("{ns:0}:") for key in of_partition)
    assert len(set(of_partition)) == len(of_partition)
    assert keys.entries(ZERO) == "{ns:0}:in"
    assert keys.inbox(ZERO, "x") == "{ns:0}:out:~x"


@given(
    message=st.dictionaries(st.text(), VALUES),
    keys=st.dictionaries(st.text(), VALUES),
    headers=st.dictionaries(st.text(), VALUES),
    mark=st.integers(0, 2),
    expires=st.integers(0, 2**40),
)
def test_what_a_producer_writes_is_read(
    message: dict[str, Any],
    keys: dict[str, Any],
    headers: dict[str, Any],
    mark: int,
    expires: int,
):
    message = message | {"type": "t"}
    for name in ("asgi", "state", "extensions", "durable", "scope_id", "type"):
        keys.pop(name, None)
    outgoing = Outgoing(
        scope_id=ScopeId("ä"),
        message=pack(message, "m"),
        scope_keys=pack(keys, "c") if keys else b"",
        inbox="box",
        headers=pack(headers, "h") if headers else b"",
        mark=mark,
        expires_unix_ms=expires,
        message_id="mid",
    )
    entry = read(*outgoing_fields(outgoing), limit=2**20)
    assert isinstance(entry, Entry), entry
    assert entry.message == message
    assert (entry.scope_id, entry.extras.inbox, entry.extras.mark) == ("ä", "box", mark)
    assert (entry.extras.expires_unix_ms, entry.extras.message_id) == (expires, "mid")
    assert entry.extras.scope_keys == outgoing.scope_keys
    assert (entry.extras.headers or {}) == headers


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"s", b"m", b"j", b"c", b"r", b"h", b"w", b"x", b"k", b"zz"]),
            st.binary(max_size=40)
            | VALUES.map(lambda value: msgpack.packb(value))
            | st.text().map(lambda text: text.encode("utf-8", "replace")),
        )
    )
)
def test_no_entry_raises(fields: list[tuple[bytes, bytes]]):
    entry = read_entry(ZERO, EntryId("5-1"), [part for pair in fields for part in pair], LIMIT)
    if isinstance(entry, BadEntry):
        assert entry.reason
        entry.reason.encode()
    assert entry.id == "5-1"


@pytest.mark.parametrize("value", [1, 0, -1, 1.5, "x", True, None, [], {}])
def test_message_of_json(value: Any):
    entry = read("s", "a", "j", json.dumps({"type": "t", "x": value}))
    assert isinstance(entry, Entry)
    assert entry.message == {"type": "t", "x": value}


def test_scope_ids_that_are_known_are_not_checked_again_but_none_is_none():
    def read_with(known: set[ScopeId], scope: bytes) -> Entry | BadEntry:
        flat = [b"s", scope, b"m", msgpack.packb({"type": "t"})]
        return read_entry(ZERO, EntryId("5-1"), flat, LIMIT, known)

    long = "x" * 600
    assert isinstance(read_with(set(), long.encode()), BadEntry)
    assert isinstance(read_with({ScopeId(long)}, long.encode()), Entry)
    # What cannot be read is counted there, and what user code has made an instance for.
    known = {ScopeId(""), ScopeId("~inbox")}
    assert isinstance(read_with(known, b""), BadEntry)
    assert isinstance(read_with(known, b"~inbox"), BadEntry)


def test_entry_of_a_scope_and_a_message_has_no_extras_of_its_own():
    body = msgpack.packb({"type": "t"})
    plain, marked = read("s", "a", "m", body), read("s", "a", "m", body, "w", "1")
    assert isinstance(plain, Entry)
    assert isinstance(marked, Entry)
    assert plain.extras is PLAIN
    assert marked.extras == replace(PLAIN, mark=1)
    of_json = read("s", "a", "j", '{"type": "t"}')
    assert isinstance(of_json, Entry)
    assert of_json.extras is PLAIN


def test_msgpack_wins_over_json():
    entry = read("s", "a", "j", '{"type": "j"}', "m", msgpack.packb({"type": "m"}))
    assert isinstance(entry, Entry)
    assert entry.message["type"] == "m"


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, 2**64, -(2**63) - 1, object(), {1, 2}, {object(): 1}]
)
def test_values_that_do_not_travel_are_refused(bad: Any):
    for value in (bad, [bad], {"x": {"y": [bad]}}):
        with pytest.raises(MessageError):
            pack(value, "it")
    assert unpack(pack({"fine": 1.5}, "it")) == {"fine": 1.5}, "the packer is usable afterwards"


def test_str_stays_str_and_bytes_stay_bytes():
    assert unpack(pack({"a": "x", "b": b"x"}, "it")) == {"a": "x", "b": b"x"}


def test_extension_types_are_refused():
    with pytest.raises(ValueError, match="extension"):
        unpack(msgpack.packb(msgpack.ExtType(1, b"x")))


@pytest.mark.parametrize("message", [{}, {"type": 1}, {"type": b"t"}, {"type": None}])
def test_event_without_a_type_is_refused(message: dict[str, Any]):
    with pytest.raises(MessageError, match="type"):
        pack_message(message, LIMIT)


def test_event_that_is_too_large_is_refused():
    with pytest.raises(MessageError, match="more than 1000"):
        pack_message({"type": "t", "x": "x" * 1000}, LIMIT)


@pytest.mark.parametrize("scope", ["", "~a", "x" * 513, "é" * 257, "\ud800"])
def test_scope_ids_that_cannot_be_are_refused(scope: str):
    with pytest.raises(MessageError):
        check_scope_id(scope)


def test_scope_ids_may_be_anything_else():
    for scope in ("a", "a~", "x" * 512, "{a}", "a:b", "é" * 256, " "):
        assert check_scope_id(scope) == scope


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"m", b"i", b"n", b"s", b"a", b"z", b"e", b"zz"]),
            st.binary(max_size=20)
            | st.integers().map(lambda number: b"%d" % number)
            | VALUES.map(lambda value: msgpack.packb(value)),
        )
    )
)
def test_what_is_no_reply_raises_a_value_error_and_nothing_else(fields: list[tuple[bytes, bytes]]):
    """Anybody may append to a reply stream: its readers expect this one error."""
    with contextlib.suppress(ValueError):
        reply = read_reply(b"9-0", [part for pair in fields for part in pair])
        assert reply.id == "9-0"


def test_replies_are_read():
    flat = [b"m", msgpack.packb({"type": "t"}), b"i", b"1-1", b"n", b"3", b"s", b"a"]
    reply = read_reply(b"9-0", flat)
    assert (reply.id, reply.cause, reply.index, reply.scope_id) == ("9-0", "1-1", 3, "a")
    assert reply.message == {"type": "t"}
    assert not reply.is_end
    end = read_reply(b"9-1", [b"i", b"1-1", b"n", b"0", b"z", b"0", b"a", b"1.1"])
    assert (end.count, end.attempt, end.message, end.is_end) == (0, "1.1", None, True)
    error = read_reply(b"9-1", [b"i", b"1-1", b"n", b"0", b"e", "Ü: no".encode()])
    assert (error.error, error.is_end) == ("Ü: no", True)
