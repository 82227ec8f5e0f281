"""Passwords: kept out of whatever is shown."""

from __future__ import annotations

import re


def hide_password(url: str) -> str:
    """The URL without its password, also if it is misspelt or the password is not quoted."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    hidden = f"{scheme}{separator}{user}{colon}{'***' if colon else ''}{at}{place}"
    return re.sub(r"([?&](?:ssl_|sentinel_)?password=)[^&#]*", r"\1***", hidden)
