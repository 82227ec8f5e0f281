"""Findings: what the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing need be done."""
    WARNING = "warning"
    """It works, and may cost something one day."""
    ERROR = "error"
    """It does not work, or soon will not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how much it matters.
        subject: what was looked at, one word.
        text: what was found.
        remedy: what to do about it, "" if nothing.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """Nothing need be done."""
    return Finding(level=Level.OK, subject=subject, text=text)


def note(subject: str, text: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(level=Level.NOTE, subject=subject, text=text, remedy=remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """It may cost something one day."""
    return Finding(level=Level.WARNING, subject=subject, text=text, remedy=remedy)


def error(subject: str, text: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(level=Level.ERROR, subject=subject, text=text, remedy=remedy)
