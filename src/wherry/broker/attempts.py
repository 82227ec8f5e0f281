"""Rows of the attempts hash: what is remembered of entries that failed, or that may kill."""

from __future__ import annotations

from typing import Any, cast

from ..model import AttemptsRow
from .wire import pack, unpack


def pack_row(row: AttemptsRow) -> bytes:
    """A row as it is written; what it does not have is left out."""
    fields: dict[str, object] = {
        "attempts": row.attempts,
        "not_before": row.not_before_unix_ms,
        "error": row.error,
    }
    if row.crashes:
        fields["crashes"] = row.crashes
    if row.probe:
        fields["probe"] = row.probe
    if row.is_held:
        fields["held"] = True
    return pack(fields, "attempts row")


def read_row(packed: bytes) -> AttemptsRow | None:
    """A row as it was read; None if it is none."""
    try:
        fields = cast("dict[str, Any]", unpack(packed))
        return AttemptsRow(
            attempts=int(fields["attempts"]),
            not_before_unix_ms=int(fields["not_before"]),
            error=str(fields.get("error", "")),
            crashes=int(fields.get("crashes", 0)),
            probe=str(fields.get("probe", "")),
            is_held=bool(fields.get("held")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
