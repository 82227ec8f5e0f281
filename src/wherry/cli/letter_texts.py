"""How ``wherry dlq`` shows dead letters: rows, whole letters, and the same as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ..broker.wire import unpack
from ..client.letter_search import Place
from ..model import DeadLetter, id_key
from .letters import Listing, Outcome
from .messages import encode_bytes
from .tables import facts, shorten, span, table, visible

_RAW_BYTES = 2_000
"""Of a payload that cannot be read."""


def listing_text(listing: Listing) -> str:
    """One line for each letter."""
    held = sum(place.is_held for place, _ in listing.found)
    dead = len(listing.found) - held
    foot = f"{_count(dead, 'dead letter')}, {held} held, {listing.looked_at} looked at"
    if listing.resume is not None:
        foot += f"; there may be more: --after {listing.resume}"
    if not listing.found:
        return foot
    rows = [
        [
            str(place),
            span((listing.now_ms - id_key(letter.letter_id)[0]) / 1000),
            shorten(letter.scope_id, 20) or "?",
            shorten(_kind(letter), 16),
            str(letter.attempts),
            next(iter(letter.error.splitlines()), ""),
        ]
        for place, letter in listing.found
    ]
    titles = ["LETTER", "AGE", "SCOPE", "TYPE", "TRIES", "ERROR"]
    return f"{table(titles, rows, {0, 2, 3, 5})}\n\n{foot}"


def listing_data(listing: Listing) -> dict[str, object]:
    """The same for `json.dumps`."""
    return {
        "letters": [
            {
                "letter": str(place),
                "partition": place.partition,
                "held": place.is_held,
                "scope": letter.scope_id,
                "type": _kind(letter),
                "entry": letter.entry_id,
                "attempts": letter.attempts,
                "age_ms": max(0, listing.now_ms - id_key(letter.letter_id)[0]),
                "error": letter.error,
            }
            for place, letter in listing.found
        ],
        "looked_at": listing.looked_at,
        "resume": None if listing.resume is None else str(listing.resume),
    }


def letter_text(place: Place, letter: DeadLetter, now_ms: int) -> str:
    """Everything about a letter, its payload readable."""
    moment = id_key(letter.letter_id)[0]
    pairs = [
        ("held message" if place.is_held else "dead letter", str(place)),
        ("scope", letter.scope_id or "(cannot be read)"),
        ("entry", letter.entry_id),
        ("sent" if place.is_held else "died", f"{_when(moment)}, {_ago(now_ms - moment)}"),
        ("attempts", str(letter.attempts)),
        ("error", letter.error),
        *((name, _inline(value)) for name, value in _extras(letter).items()),
    ]
    lines = [facts(pairs)]
    lines += ["", "message", _indent(_payload(letter))]
    if letter.traceback:
        lines += ["", "traceback", _indent(letter.traceback)]
    return "\n".join(lines)


def letter_data(place: Place, letter: DeadLetter, now_ms: int) -> dict[str, object]:
    """The same for `json.dumps`."""
    readable = {name: encode_bytes(value) for name, value in _extras(letter).items()}
    return {
        "letter": str(place),
        "partition": place.partition,
        "held": place.is_held,
        "scope": letter.scope_id,
        "entry": letter.entry_id,
        "attempts": letter.attempts,
        "age_ms": max(0, now_ms - id_key(letter.letter_id)[0]),
        "error": letter.error,
        "traceback": letter.traceback,
        **readable,
        "message": encode_bytes(letter.message),
        "fields": encode_bytes(dict(letter.fields)) if letter.message is None else {},
    }


def outcome_text(outcome: Outcome, verb: str, *, dry_run: bool) -> str:
    """What was done, and what is left."""
    would = "would be " if dry_run else ""
    text = f"{_count(outcome.done, 'letter')} {would}{verb}"
    if outcome.gone:
        text += f"; not there: {', '.join(str(one) for one in outcome.gone[:5])}"
        text += f" and {len(outcome.gone) - 5} more" if len(outcome.gone) > 5 else ""
    if outcome.resume is not None:
        text += f"; there may be more: --after {outcome.resume}"
    return text


def outcome_data(outcome: Outcome, verb: str, *, dry_run: bool) -> dict[str, object]:
    """The same for `json.dumps`."""
    return {
        verb: outcome.done,
        "dry_run": dry_run,
        "gone": [str(one) for one in outcome.gone],
        "looked_at": outcome.looked_at,
        "resume": None if outcome.resume is None else str(outcome.resume),
        "refusal": outcome.refusal,
    }


def _extras(letter: DeadLetter) -> dict[str, Any]:
    """What only some letters have."""
    found: dict[str, Any] = {"headers": dict(letter.headers)} if letter.headers else {}
    if packed := letter.fields.get("c"):
        try:
            found["scope_keys"] = unpack(packed)
        except ValueError:
            found["scope_keys"] = packed
    if message_id := letter.fields.get("k"):
        found["message_id"] = message_id.decode("utf-8", "replace")
    if letter.original_id:
        found["replayed_from"] = letter.original_id
    return found


def _payload(letter: DeadLetter) -> str:
    if letter.message is not None:
        return json.dumps(encode_bytes(letter.message), indent=2, ensure_ascii=False)
    raw = letter.fields.get("m") or letter.fields.get("j") or b""
    if not raw:
        return "(none)"
    more = f" ... {len(raw)} bytes in all" if len(raw) > _RAW_BYTES else ""
    return f"(cannot be read) {raw[:_RAW_BYTES]!r}{more}"


def _kind(letter: DeadLetter) -> str:
    kind = None if letter.message is None else letter.message.get("type")
    return kind if isinstance(kind, str) else "?"


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(encode_bytes(value), ensure_ascii=False)


def _indent(text: str) -> str:
    return "\n".join(f"  {visible(line)}" for line in text.splitlines())


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _ago(milliseconds: int) -> str:
    return f"{span(milliseconds / 1000)} ago"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
