"""docs/operations.md: a section for each alert, commands that run, figures that were measured."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import LIMIT_S, Project
from tests.cli.letters import Planted
from tests.monitoring.queries import rules
from tests.test_docs import ROOT, blocks
from wherry import Config

PAGE = "docs/operations.md"
EXAMPLE = "web-1-4711-5f3a9c"


def text() -> str:
    return (ROOT / PAGE).read_text("utf-8")


def typed(program: str) -> list[list[str]]:
    """The words behind the prompts of one program; those of the recipe are indented."""
    lines = [line for body in blocks(PAGE, "console") for line in body.splitlines()]
    lines += re.findall(r"^   (\$ .*)$", text().split("## More than")[0], re.MULTILINE)
    found = [shlex.split(line[2:]) for line in lines]
    return [words[1:] for words in found if words[0] == program]


def test_each_alert_has_its_section_in_order():
    sections = re.findall(r"^### (Wherry\w+)\n\n\*(.+?)\*", text(), re.DOTALL | re.MULTILINE)
    assert [name for name, _ in sections] == [rule["alert"] for rule in rules()]


def test_limits_of_the_alerts_are_those_of_the_page():
    by_name = {rule["alert"]: rule for rule in rules()}
    spelt = {"60": "a minute", "2m": "two minutes", "1m": "a minute", "[10m]": "ten minutes"}
    for name, limits in {
        "WherryBacklogOld": ("60", "2m"),
        "WherryFencedCommits": ("[10m]",),
        "WherryPartitionWithoutOwner": ("1m",),
        "WherryWorkerNotReady": ("2m",),
        "WherryLoopStalls": ("[10m]",),
    }.items():
        said = text().split(f"### {name}\n\n")[1].split("\n\n")[0].replace("\n", " ")
        for limit in limits:
            assert limit in f"{by_name[name]['expr']} {by_name[name].get('for')}", name
            assert spelt[limit] in said, (name, limit)


@pytest.mark.limit_s(180)
def test_commands_do_what_the_page_says(tmp_path: Path, redis_url: str):
    project = Project(tmp_path, redis_url)
    with Planted(redis_url, partitions=64) as planted:
        planted.bury("alice", "1700000000000-0", "ValueError: no database")
        with project.start_worker("echo:app", "--set", "beat_s=0.1") as worker:
            assert len(typed("wherry")) > 10
            for words in sorted(typed("wherry"), key=lambda one: one[:2] == ["workers", "drain"]):
                name = worker.events[0]["worker"]
                done = project.run(*(name if one == EXAMPLE else one for one in words))
                assert done.returncode == 0, (words, done.stdout, done.stderr)
            assert worker.process.wait(LIMIT_S) == 0, "the last one drains"


def test_what_else_is_typed_names_what_there_is():
    manifest = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "deployment.yaml").read_text())
    [scale] = typed("kubectl")
    assert scale[:3] == ["scale", "deployment", manifest["metadata"]["name"]]
    [up] = typed("docker")
    service = up[up.index("--scale") + 1].split("=")[0]
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert service in file["services"]


def test_figures_are_those_that_were_measured():
    rows = re.findall(r"^\| .+? \| (.+?) \| \*(.+?)\* \|$", text(), re.MULTILINE)
    assert len(rows) >= 5
    measured = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for figure, name in rows:
        [row] = re.findall(rf"^\| {re.escape(name)}.*$", measured, re.MULTILINE)
        assert figure in row, (name, row)


def test_defaults_are_those_of_the_code():
    """What the page says in brackets behind a setting."""
    said = re.findall(r"`(\w+)`(?: \(|, )([\d,]+)(?: (s|MiB))?\)", text())
    assert {name for name, _, _ in said} >= {"start_wait_s", "drain_timeout_s", "lease_s"}
    for name, figure, unit in said:
        value = int(figure.replace(",", "")) * (2**20 if unit == "MiB" else 1)
        assert getattr(Config(), name) == value, name
