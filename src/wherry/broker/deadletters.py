"""Dead letters and held entries: read, sent again, dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..model import ORIGIN, AttemptsRow, DeadLetter, EntryId, Partition, ScopeId, id_key
from .attempts import read_row
from .entries import read_body
from .link import Link
from .scripts import Script
from .streams import RawEntry, fetch_entries
from .wire import Keys, unpack

_OWN_FIELDS = 5
"""A dead letter begins with so many fields of its own; those of the entry follow."""
_ROWS_AT_ONCE = 500
_ENTRIES_AT_ONCE = 50
"""Each may have a megabyte."""


async def read_letters(
    link: Link, keys: Keys, partition: Partition, *, after: str, count: int
) -> list[DeadLetter]:
    """Up to so many dead letters of a partition behind an id, oldest first."""
    answer = await link.call("XRANGE", keys.dead(partition), f"({after}", "+", "COUNT", count)
    return [read_letter(partition, raw) for raw in cast("list[RawEntry]", answer)]


async def last_letter_id(link: Link, keys: Keys, partition: Partition) -> EntryId:
    """Id of the newest dead letter of a partition, "0-0" if there is none."""
    answer = await link.call("XREVRANGE", keys.dead(partition), "+", "-", "COUNT", 1)
    newest = cast("list[RawEntry]", answer)
    return EntryId(newest[0][0].decode()) if newest else ORIGIN


async def get_letter(
    link: Link, keys: Keys, partition: Partition, letter_id: str
) -> DeadLetter | None:
    """One dead letter, None if there is none of that id."""
    (raw,) = await fetch_entries(link, keys.dead(partition), [letter_id])
    return None if raw is None else read_letter(partition, raw)


async def replay_letters(
    link: Link,
    script: Script,
    keys: Keys,
    partition: Partition,
    letter_ids: Sequence[str],
    *,
    backlog: int,
) -> list[str | None]:
    """Send dead letters again, in one step.

    Returns:
        For each the id of its new entry, "" if there is no such letter, None if there is no room.
    """
    names = (keys.dead(partition), keys.entries(partition))
    answer = await script.run(link, names, (backlog, *letter_ids))
    found = cast("list[bytes | int]", answer)
    return [None if isinstance(one, int) else one.decode() for one in found]


async def drop_letters(
    link: Link, keys: Keys, partition: Partition, letter_ids: Sequence[str]
) -> int:
    """Delete dead letters; returns how many there were."""
    return int(await link.call("XDEL", keys.dead(partition), *letter_ids))


async def read_held(
    link: Link, keys: Keys, partition: Partition, *, after: str, count: int
) -> list[DeadLetter]:
    """Up to so many entries of a partition behind an id that hold their scopes, oldest first.

    All rows are gone through, in steps: there is one for each entry that has failed.
    """
    rows: dict[str, AttemptsRow] = {}
    cursor: bytes | int = 0
    while True:
        answer = await link.call("HSCAN", keys.attempts(partition), cursor, "COUNT", _ROWS_AT_ONCE)
        cursor, flat = cast("tuple[bytes | int, list[bytes]]", answer)
        for entry_id, packed in zip(flat[::2], flat[1::2], strict=True):
            row, name = read_row(packed), entry_id.decode()
            if row is not None and row.is_held and id_key(name) > id_key(after):
                rows[name] = row
        is_over = int(cursor) == 0
        if is_over or len(rows) > 2 * count:
            rows = {one: rows[one] for one in sorted(rows, key=id_key)[:count]}
        if is_over:
            break
    ids, found = list(rows), list[DeadLetter]()
    for start in range(0, len(ids), _ENTRIES_AT_ONCE):
        some = ids[start : start + _ENTRIES_AT_ONCE]
        entries = await fetch_entries(link, keys.entries(partition), some)
        found += [
            _make(partition, raw[0], _own_fields(raw[0], rows[one]), raw[1])
            for one, raw in zip(some, entries, strict=True)
            if raw is not None
        ]
    return found


async def get_held(
    link: Link, keys: Keys, partition: Partition, entry_id: str
) -> DeadLetter | None:
    """One held entry, None if that one is not held."""
    packed = cast("bytes | None", await link.call("HGET", keys.attempts(partition), entry_id))
    row = None if packed is None else read_row(packed)
    (raw,) = await fetch_entries(link, keys.entries(partition), [entry_id])
    if raw is None or row is None or not row.is_held:
        return None
    return _make(partition, raw[0], _own_fields(raw[0], row), raw[1])


async def release_held(
    link: Link,
    script: Script,
    keys: Keys,
    partition: Partition,
    entry_id: str,
    *,
    drops: bool,
) -> bool:
    """Let a held entry be tried again, or drop it; False if it is not held."""
    seen = cast("bytes | None", await link.call("HGET", keys.attempts(partition), entry_id))
    row = None if seen is None else read_row(seen)
    if seen is None or row is None or not row.is_held:
        return False
    names = (keys.entries(partition), keys.attempts(partition))
    answer = await script.run(link, names, (entry_id, int(drops), seen, keys.released))
    return answer == 1


def read_letter(partition: Partition, raw: RawEntry) -> DeadLetter:
    """Decode a dead letter; what it holds of the entry may be anything."""
    letter_id, flat = raw
    own, fields = flat[: 2 * _OWN_FIELDS], flat[2 * _OWN_FIELDS :]
    return _make(partition, letter_id, dict(zip(own[::2], own[1::2], strict=True)), fields)


def _own_fields(entry_id: bytes, row: AttemptsRow) -> dict[bytes, bytes]:
    """What a dead letter would say of a held entry."""
    error = row.error.encode("utf-8", "replace")
    return {b"id": entry_id, b"error": error, b"attempts": str(row.attempts).encode()}


def _make(
    partition: Partition, letter_id: bytes, own: Mapping[bytes, bytes], flat: Sequence[bytes]
) -> DeadLetter:
    fields = {
        name.decode("utf-8", "replace"): value
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    try:
        message = read_body(fields.get("m") or fields.get("j") or b"")
    except ValueError:
        message = None
    return DeadLetter(
        partition=partition,
        letter_id=EntryId(letter_id.decode()),
        entry_id=EntryId(own[b"id"].decode()),
        scope_id=ScopeId(fields.get("s", b"").decode("utf-8", "replace")),
        message=message,
        error=own[b"error"].decode("utf-8", "replace"),
        traceback=own.get(b"traceback", b"").decode("utf-8", "replace"),
        attempts=int(own[b"attempts"]),
        died_unix_ms=int(own.get(b"when", b"0")),
        headers=_read_headers(fields.get("h", b"")),
        original_id=fields.get("o", b"").decode("utf-8", "replace"),
        fields=fields,
    )


def _read_headers(packed: bytes) -> Mapping[str, Any]:
    try:
        headers: object = unpack(packed) if packed else {}
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", headers) if isinstance(headers, dict) else {}
