"""`wherry config show`: what each setting is, and who said so."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Project
from wherry.cli.settings import PROCESS_SETTINGS
from wherry.config import Config


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("pyproject.toml", "[tool.wherry]\nlease_s = 9\nbacklog = 7\n")
    return made


def shown(project: Project, *options: str, **variables: str) -> dict[str, Any]:
    done = project.run("config", "show", "--json", *options, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_setting_has_its_value_and_its_source(project: Project):
    found = shown(project, "--namespace", "shop", "--set", "beat_s=1", WHERRY_BACKLOG="8")
    assert set(found) == set(PROCESS_SETTINGS) | {one.name for one in fields(Config)}
    where = str(project.directory / "pyproject.toml")
    assert found["lease_s"] == {
        "value": 9.0, "source": "pyproject", "place": f"lease_s in [tool.wherry] of {where}",
    }  # fmt: skip
    assert found["backlog"] == {"value": 8, "source": "environment", "place": "WHERRY_BACKLOG"}
    assert found["namespace"] == {"value": "shop", "source": "flag", "place": "--namespace"}
    assert found["beat_s"] == {"value": 1.0, "source": "flag", "place": "--set beat_s"}
    assert found["block_s"] == {"value": 5.0, "source": "default", "place": ""}
    assert found["url"] == {"value": None, "source": "default", "place": ""}


def test_table_shows_the_same_and_no_password(project: Project):
    url = "redis://me:hunter2@no-such-host/0"  # nobody is asked, so that it need not exist
    done = project.run("config", "show", WHERRY_URL=url, WHERRY_LEESE_S="1")
    assert done.returncode == 0
    lines = {line.split()[0]: line.split(None, 2)[1:] for line in done.stdout.splitlines()}
    assert lines["url"] == ["redis://me:***@no-such-host/0", "WHERRY_URL"]
    assert lines["durable_state"] == ["off", "default"]
    assert lines["partitions"] == ["unset", "default"]
    assert "did you mean WHERRY_LEASE_S?" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_value_that_cannot_be_is_a_mistake(project: Project):
    done = project.run("config", "show", "--set", "beat_s=8")
    assert (done.returncode, done.stdout) == (2, "")
    assert "lease_s in [tool.wherry]" in done.stderr
