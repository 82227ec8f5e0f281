"""Ranges: which values the settings of the command line may have; `Config` checks its own."""

from __future__ import annotations

import re

from ..errors import ConfigError

MOST_WORKERS = 1_024
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMG]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def check_range(name: str, value: str | float | bool, source: str) -> None:
    """Refuse a value that a setting cannot have.

    Raises:
        ConfigError: the text names the source.
    """
    if name == "workers" and not 1 <= int(value) <= MOST_WORKERS:
        raise ConfigError(
            f"{source}={value}: workers must lie between 1 and {MOST_WORKERS}; "
            "start more on other machines"
        )
    if name == "max_messages" and int(value) < 0:
        raise ConfigError(f"{source}={value}: max_messages must be 0 (off) or more")
    if name == "max_memory":
        try:
            parse_bytes(str(value))
        except ValueError:
            raise ConfigError(
                f"{source}={value!r}: max_memory must be a size such as 512M or 2G"
            ) from None


def parse_bytes(text: str) -> int:
    """A size such as ``512M`` in bytes: K, M and G are powers of 1,024; "" is 0.

    Raises:
        ValueError: it is none, or not above 0.
    """
    if not text:
        return 0
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ValueError(text)
    return size
