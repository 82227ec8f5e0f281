"""docs/configuration.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from wherry.cli.exits import ExitCode
from wherry.cli.settings import PROCESS_SETTINGS, variable_of
from wherry.config import Config

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def shown(default: object) -> str:
    """A default as the table writes it."""
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, int | float):
        return f"{default:,.15g}" if isinstance(default, float) else f"{default:,}"
    return f"`{default}`" if default else "empty"


def table_of_config() -> list[str]:
    return [
        f"| `{one.name}` | `{variable_of(one.name)}` | {shown(one.default)} "
        f"| {one.metadata['unit'].replace('|', ', ')} | {one.metadata['reason']} |"
        for one in fields(Config)
    ]


def test_page_lists_every_setting_of_a_worker_with_unit_default_and_reason():
    listed = re.findall(r"^\| `[a-z_]+` \| `WHERRY_.*$", PAGE.read_text("utf-8"), re.MULTILINE)
    config = [row for row in listed if row.split("`")[1] in {one.name for one in fields(Config)}]
    assert config == table_of_config(), "the table should be:\n" + "\n".join(table_of_config())


def test_page_lists_every_setting_of_the_command_line():
    page = PAGE.read_text("utf-8")
    missing = [
        name for name in PROCESS_SETTINGS if f"| `{name}` | `{variable_of(name)}` |" not in page
    ]
    assert missing == []


def test_page_lists_every_exit_code():
    listed = re.findall(r"^\| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [int(code) for code in listed] == sorted(ExitCode)
