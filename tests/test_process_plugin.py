"""The plugin for what tests share really notices what it says it notices."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process_plugin import OURS, compare, look


def other(*_: object) -> None:
    """Stands where something else stood."""


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("the environment", lambda patch: patch.setenv("LEFT", "behind")),
        ("the working directory", lambda patch: patch.chdir(Path("/"))),
        ("the import path", lambda patch: patch.syspath_prepend("/left")),
        (
            "which loggers are off",
            lambda patch: patch.setattr(logging.getLogger("asyncio"), "disabled", True),
        ),
        ("the logger", lambda patch: patch.setattr(logging.getLogger(OURS), "propagate", False)),
        ("clocks", lambda patch: patch.setattr(time, "time", other)),
        ("tokens", lambda patch: patch.setattr(secrets, "token_hex", other)),
        ("task groups", lambda patch: patch.setattr(asyncio.TaskGroup, "__init__", other)),
    ],
)
def test_what_stays_changed_is_told(
    name: str, change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
):
    before = look()
    with monkeypatch.context() as patch:
        change(patch)
        after = look()
    with pytest.raises(AssertionError, match=name):
        compare(before, after)
    compare(before, look())
