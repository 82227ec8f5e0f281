"""Reasons: what is kept of the error that failed an attempt."""

from __future__ import annotations

import traceback

ERROR_BYTES = 2048


def reason_of(error: BaseException) -> str:
    """Class and text of an error, cut to fit."""
    name = type(error).__name__
    try:
        text = f"{name}: {error}".removesuffix(": ")
    except Exception:  # noqa: BLE001 - the application's own class
        text = f"{name} (its text cannot be had)"
    return _cut(text.encode("utf-8", "replace")[:ERROR_BYTES])


def traceback_of(error: BaseException) -> str:
    """The end of an error's traceback, "" if it cannot be had."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - the application's own class
        return ""
    return _cut(text.encode("utf-8", "replace")[-ERROR_BYTES:])


def _cut(text: bytes) -> str:
    return text.decode("utf-8", "ignore")
