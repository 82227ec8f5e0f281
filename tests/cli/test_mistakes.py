"""Wrong input: one clear message, the right exit code, no traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.cli.commands import Project
from tests.servers_plugin import StartServer

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
BAD_IMPORT = "import not_installed_anywhere\n"
BAD_LIFESPAN = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
MEMORY = {"WHERRY_URL": "memory://"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("fast.py", FASTAPI)
    made.write("broken.py", BAD_IMPORT)
    made.write("lifespan.py", BAD_LIFESPAN)
    made.write("number.py", "app = 3\n")
    made.write("pyproject.toml", "[project]\nname = 'x'\n")
    return made


def check(
    project: Project, arguments: tuple[str, ...], variables: dict[str, str], code: int, text: str
) -> None:
    done = project.run(*arguments, **variables)
    assert text in done.stderr
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "text"),
    [
        (("run", "ecko:app"), MEMORY, 2, "wherry: there is no module 'ecko'"),
        (("run", "echo:ap"), MEMORY, 2, "wherry: module 'echo' has no attribute 'ap'; did you"),
        (("run", "number:app"), MEMORY, 2, "is of type 'int', which cannot be called"),
        (("run", "fast:app"), MEMORY, 2, "fast:app is a FastAPI application"),
        (("run", "broken:app"), MEMORY, 3, "broken.py, line 1, in <module>: import not_installed"),
        (("run", "lifespan:app"), MEMORY, 3, "no database"),
        (("run",), MEMORY, 2, "wherry: no application: wherry run MODULE:ATTRIBUTE"),
        (("run", "echo:app", "--factory"), MEMORY, 2, "leave --factory out"),
        (("run", "echo:app", "--lease", "x"), MEMORY, 2, "--lease"),
        (("run", "echo:app", "--lease", "0.1"), MEMORY, 2, "(set by --lease = 0.1)"),
        (("run", "echo:app", "--set", "leese=3"), MEMORY, 2, "did you mean 'lease_s'?"),
        (("run", "echo:app"), MEMORY | {"WHERRY_LEASE_S": "x"}, 2, "WHERRY_LEASE_S='x'"),
        (("run", "echo:app"), {"WHERRY_URL": "reddis://h"}, 2, "did you mean redis://?"),
        (("run", "echo:app"), {"WHERRY_URL": "localhost:6379"}, 2, "is not one that Wherry knows"),
        (("run", "echo:app"), {"WHERRY_EMBEDDED": "0"}, 2, "no store: WHERRY_EMBEDDED=0"),
        (("send", "a", '{"type": "x"}'), {"WHERRY_EMBEDDED": "0"}, 2, "no store"),
        (("send", "a", '{"type": "x"}'), MEMORY, 2, "a memory:// store lives inside one process"),
        (("send", "a", '{"text": "hello"}'), {}, 2, "the message has no 'type'"),
        (("replies", "a", "--after", "yesterday"), {}, 2, "is not an entry id"),
    ],
)
def test_mistake(
    project: Project, arguments: tuple[str, ...], variables: dict[str, str], code: int, text: str
):
    check(project, arguments, variables, code, text)


def test_unknown_key_in_pyproject(project: Project):
    project.write("pyproject.toml", "[tool.wherry]\nlease = 3\n")
    check(project, ("run", "echo:app"), MEMORY, 2, "did you mean 'lease_s'?")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "echo:app"),
        ("send", "a", '{"type": "x"}'),
        ("replies", "a"),
        ("status",),
    ],
)
def test_unreachable_redis(project: Project, arguments: tuple[str, ...]):
    with socket.socket() as taken:  # bound but not listening: refused, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        variables = {
            "WHERRY_URL": f"redis://127.0.0.1:{taken.getsockname()[1]}/0",
            "WHERRY_START_WAIT_S": "0",
        }
        check(project, arguments, variables, 4, "cannot be reached")


@pytest.mark.parametrize("login", [":wrong@", "", "nobody:secret@"])
@pytest.mark.parametrize("arguments", [("run", "echo:app"), ("send", "a", '{"type": "x"}')])
def test_wrong_password(
    project: Project, start_server: StartServer, arguments: tuple[str, ...], login: str
):
    server = start_server(password="secret")
    variables = {"WHERRY_URL": f"redis://{login}127.0.0.1:{server.port}/0"}
    check(project, arguments, variables, 5, "wherry: Redis at")


def test_password_is_never_shown(project: Project, start_server: StartServer):
    server = start_server(password="secret")
    url = f"redis://:hunter2@127.0.0.1:{server.port}/0"
    done = project.run("run", "echo:app", WHERRY_URL=url)
    assert ":***@" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_wrong_partition_count(project: Project, redis_url: str):
    variables = {"WHERRY_URL": redis_url}
    assert project.run("send", "a", '{"type": "x"}', **variables).returncode == 0
    wrong = (*("run", "echo:app"), "--partitions", "8")
    check(project, wrong, variables, 7, "leave the count unset to adopt 64")
    wrong = (*("send", "a", '{"type": "x"}'), "--partitions", "8")
    check(project, wrong, variables, 7, "leave the count unset to adopt 64")


def test_misspelt_variable_is_only_warned_about(project: Project, redis_url: str):
    done = project.run(
        *("send", "a", '{"type": "x"}'),
        WHERRY_URL=redis_url,
        WHERRY_NAMESPACES="x",
        WHERRY_SERVICE_HOST="10.0.0.1",
    )
    assert done.returncode == 0
    assert done.stderr == (
        "wherry: warning: WHERRY_NAMESPACES is not a setting and is ignored; "
        "did you mean WHERRY_NAMESPACE?\n"
    )
