"""No password of a URL reaches a log or a message."""

from __future__ import annotations

import pytest

from wherry.broker.connect import open_store
from wherry.broker.passwords import hide_password
from wherry.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://me:secret@h/0?db=1", "redis://me:***@h/0?db=1"),
        ("redis://me@h", "redis://me@h"),
        ("rediss://me:se/cr#e?t@x@h", "rediss://me:***@h"),
        ("redis://:se://cret@h", "redis://:***@h"),
        ("me:secret@h:6379", "me:***@h:6379"),
        ("redis://h/0?password=secret&db=1", "redis://h/0?password=***&db=1"),
        ("unix:///run/redis.sock?db=0&password=secret", "unix:///run/redis.sock?db=0&password=***"),
        ("embedded:///some/dir", "embedded:///some/dir"),
        ("redis://[::1", "redis://[::1"),
    ],
)
def test_password_is_hidden(url: str, shown: str):
    assert hide_password(url) == shown


def test_complaint_about_a_password_that_is_not_quoted_does_not_show_it():
    with pytest.raises(ConfigError, match="quote special letters") as raised:
        open_store("redis://:secret/x@h:6379")
    assert "secret" not in str(raised.value)
