"""What docs/commands.md shows of the fleet's commands, typed as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.commands import LIMIT_S, Project
from tests.cli.terminals import terminal
from tests.servers import wait_until
from tests.servers_plugin import StartServer
from tests.test_docs import ROOT, blocks
from wherry.doctor.rights import ROLES, acl_of

PAGE = "docs/commands.md"
OURS = ("status", "partitions", "workers", "scopes", "top", "pause", "resume")
EXAMPLE = "web-1-4711-5f3a9c"
LOOKING = ("status", "partitions", "workers ls", "scopes ls", "scopes show alice", "top --once")


def typed() -> list[list[str]]:
    """The words behind the prompts of the page, of the commands that this test knows."""
    lines = [line for body in blocks(PAGE, "console") for line in body.splitlines()]
    found = [shlex.split(line[2:])[1:] for line in lines if line.startswith("$ wherry ")]
    return [words for words in found if words[0] in OURS]


def viewer() -> list[str]:
    """The rules for who may only look, from the sentence of the page about rights."""
    text = (ROOT / "docs/redis.md").read_text(encoding="utf-8")
    [sentence] = re.findall(r"^Who may only look.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    rules = [one for one in re.findall(r"`([^`]*)`", sentence) if one[0] in "~+&"]
    return [word for rule in rules for word in rule.split()]


def press_q(project: Project, words: list[str]) -> None:
    with terminal(project, *words) as shown:
        wait_until(lambda: "q quit" in shown.written, "a picture", LIMIT_S)
        shown.press(b"q")
        assert shown.process.wait(LIMIT_S) == 0


@pytest.mark.limit_s(120)
def test_commands_do_what_the_page_says(tmp_path: Path, redis_url: str):
    project = Project(tmp_path, redis_url)
    with project.start_worker("echo:app", "--partitions", "4", "--set", "beat_s=0.1") as worker:
        assert project.run("request", "alice", '{"type": "say"}').returncode == 0
        assert {words[0] for words in typed()} == set(OURS)
        for words in sorted(typed(), key=lambda words: words[:2] == ["workers", "drain"]):
            if words[0] == "top" and "--once" not in words:
                press_q(project, words)
                continue
            name = worker.events[0]["worker"]
            done = project.run(*(name if one == EXAMPLE else one for one in words))
            assert done.returncode == 0, (words, done.stderr)
            if "--json" in words:
                json.loads(done.stdout)
        assert worker.process.wait(LIMIT_S) == 0, "the last one drains"


@pytest.mark.limit_s(120)
def test_users_of_the_page_may_do_what_it_says(tmp_path: Path, start_server: StartServer):
    server = start_server()
    rules = {"viewer": viewer(), "operator": acl_of(ROLES["operator"], "wherry").split()}
    for user, words in rules.items():
        made = server.command("ACL", "SETUSER", user, "on", ">secret", "resetchannels", *words)
        assert made == b"+OK\r\n"
    project = Project(tmp_path, server.url)
    with project.start_worker("echo:app", "--partitions", "4", "--set", "beat_s=0.1") as worker:
        assert project.run("request", "alice", '{"type": "say"}').returncode == 0
        ending = f"workers drain {worker.events[0]['worker']}"
        for user, lines, code in (
            ("viewer", LOOKING, 0),
            ("viewer", ("pause", "resume"), 5),
            ("operator", (*LOOKING, "pause", "resume", ending), 0),
        ):
            url = f"redis://{user}:secret@127.0.0.1:{server.port}/0"
            for line in lines:
                done = project.run(*line.split(), "--url", url)
                assert done.returncode == code, (user, line, done.stderr)
                assert "no answer" not in done.stdout
        assert worker.process.wait(LIMIT_S) == 0
