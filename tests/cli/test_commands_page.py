"""docs/commands.md and failures.md: their commands run; rules and tables are those of doctor."""

from __future__ import annotations

import re
import shlex
import signal
import socket
from pathlib import Path

import pytest

from tests.cli.commands import Project
from tests.cli.letters import Planted
from wherry.doctor.rights import ROLES, acl_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "commands.md").read_text("utf-8")
LETTER = "1700000000000-0"
OURS = ("dlq", "purge", "doctor", "health", "config")


def commands() -> list[list[str]]:
    """What the pages type behind a prompt, of the commands that this test knows."""
    text = PAGE + (DOCS / "failures.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    typed = [shlex.split(line[2:]) for line in lines if line.startswith("$ wherry ")]
    return [words[1:] for words in typed if words[1] in OURS]


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


def test_page_has_each_command():
    assert {" ".join(words[:2]) for words in commands() if words[0] in ("dlq", "config")} == {
        *(f"dlq {one}" for one in ("ls", "show", "replay", "drop")), "config show",
    }  # fmt: skip
    assert {words[0] for words in commands()} == set(OURS)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_of_the_page_runs(project: Project, redis_url: str, words: list[str]):
    with Planted(redis_url, partitions=64) as planted:
        assert planted.bury("alice", LETTER, "ValueError: no database") == f"7/{LETTER}"
        if words[0] == "health":
            now = int(planted.link.time()[0]) * 1000
            about = {"host": socket.gethostname(), "can_claim": 1, "partitions": 64}
            planted.link.zadd("{wherry}:members", {"web-1-4242-5f3a9c": now})
            planted.link.hset("{wherry}:member:web-1-4242-5f3a9c", mapping=about)
            planted.link.pexpire("{wherry}:member:web-1-4242-5f3a9c", 100_000)
        if "--watch" in words:
            with project.start(*words) as watching:
                assert watching.process.stdout is not None
                assert "0 dead letters" in watching.process.stdout.readline()
                assert watching.stop(signal.SIGTERM) == 0
            return
        done = project.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        if words == ["dlq", "ls"]:
            shown = [line.split() for line in done.stdout.splitlines()]
            told = [line.split() for line in PAGE.split("$ wherry dlq ls\n")[1].splitlines()[:4]]
            assert shown[0] == told[0]
            assert [one for one in shown[1] if one not in (shown[1][1], shown[1][2])] == [
                one for one in told[1] if one not in (told[1][1], told[1][2])
            ]
            assert shown[2:] == told[2:]


def test_users_of_the_page_about_redis_are_those_that_doctor_knows():
    [block] = re.findall(
        r"^```acl\n(.*?)^```$", (DOCS / "redis.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    nobody = "on >secret resetkeys resetchannels -@all"
    assert block.splitlines() == [
        f"ACL SETUSER {name} {nobody} {acl_of(role, 'wherry')}" for name, role in ROLES.items()
    ]


def test_table_of_doctor_has_every_subject():
    source = DOCS.parent / "src" / "wherry" / "doctor"
    text = "".join(path.read_text("utf-8") for path in source.glob("*.py"))
    subjects = set(re.findall(r"\b(?:ok|note|warning|error)\(\s*\"(\w+)\"", text)) - {"rights"}
    [table] = re.findall(r"^\| subject \|.*?\n\n", PAGE, re.DOTALL | re.MULTILINE)
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    assert told == subjects | set(ROLES)
