"""`wherry dlq`: what was given up is found, shown, sent again and dropped, some at a time."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.cli.commands import LIMIT_S, Project
from tests.cli.letters import KEYS, PARTITIONS, Planted
from tests.servers import Server, wait_until
from wherry.client.client import Client
from wherry.client.letter_search import Place, Search, Wanted
from wherry.errors import ConfigError
from wherry.model import ORIGIN, partition_of

BRITTLE = """
from pathlib import Path

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    while True:
        message = await receive()
        if not Path("mended").exists():
            raise ValueError("no database")
        await send({"type": "done", "n": message["n"]})
"""
LATEST = 2**62


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path, redis_url)


@pytest.fixture
def planted(redis_url: str) -> Iterator[Planted]:
    with Planted(redis_url) as made:
        yield made


def listed(project: Project, *options: str) -> list[str]:
    """Names of the letters that `ls` finds."""
    return [one["letter"] for one in data(project, "ls", *options)["letters"]]


def data(project: Project, *arguments: str) -> Any:
    done = project.run("dlq", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(project: Project, scope: str) -> list[dict[str, Any]]:
    """Its replies; an error, and the line that says that an answer starts anew, are none."""
    return [one["message"] for one in project.lines("replies", scope) if one.get("message")]


@pytest.mark.parametrize("policy", ["bury", "hold"])
def test_letter_of_a_failing_application_is_replayed_once_it_is_mended(
    project: Project, policy: str
):
    """Listed, shown with its traceback, replayed, and answered exactly once."""
    project.write("brittle.py", BRITTLE)
    flags = ("--max-attempts", "2", "--on-dead-letter", policy, "--partitions", "4")
    quick = ("--set", "retry_backoff_s=0.05", "--set", "beat_s=0.1")
    with project.start_worker("brittle:app", *flags, *quick) as worker:
        for number in (1, 2):
            project.run("send", "a", json.dumps({"type": "count", "n": number}))
        held = policy == "hold"  # then the second one waits behind the first
        wait_until(lambda: len(listed(project)) == 2 - held, "given up", LIMIT_S)
        (first, *_) = listed(project)
        assert ("/held/" in first) == held
        shown = project.run("dlq", "show", first).stdout
        assert "ValueError: no database" in shown
        assert '"n": 1' in shown
        assert ('raise ValueError("no database")' in shown) == (not held)
        (project.directory / "mended").touch()
        done = project.run("dlq", "replay", "--scope", "a")
        assert done.stdout == f"{2 - held} letter{'' if held else 's'} replayed\n"
        expected = [{"type": "done", "n": 1}, {"type": "done", "n": 2}]
        wait_until(lambda: len(answers(project, "a")) == 2, "answered", LIMIT_S)
        assert listed(project) == []
        again = project.run("dlq", "replay", first)
        assert (again.returncode, again.stdout) == (1, f"0 letters replayed; not there: {first}\n")
        assert worker.stop(signal.SIGTERM) == 0
    assert answers(project, "a") == expected


def test_letters_are_chosen_by_scope_error_age_partition_and_kind(
    project: Project, planted: Planted
):
    now = int(planted.link.time()[0]) * 1000
    old = planted.bury("a", f"{now - 7_200_000}-0", "KeyError: 'x'")
    new = planted.bury("a", f"{now - 60_000}-0")
    other = planted.bury("b", f"{now - 60_000}-0")
    held = planted.hold("c", f"{now - 60_000}-0")
    assert sorted(listed(project)) == sorted([old, new, other, held])
    assert listed(project, "--scope", "a") == [old, new]
    assert listed(project, "--error", "keyerror") == [old]
    assert listed(project, "--older-than", "1h") == [old]
    assert sorted(listed(project, "--newer-than", "30m", "--dead")) == sorted([new, other])
    assert listed(project, "--held") == [held]
    assert listed(project, "--scope", "a", "--newer-than", "3h", "--error", "Value") == [new]
    assert listed(project, "--partition", held.split("/")[0], "--held") == [held]
    assert listed(project, "--partition", "99") == []


def test_pages_follow_one_another_without_gap_or_repetition(project: Project, planted: Planted):
    names = [planted.bury(f"s{number}", f"{number + 1}-0") for number in range(7)]
    names += [planted.hold(f"s{number}", f"{number + 100}-0") for number in range(3)]
    seen: list[str] = []
    after: tuple[str, ...] = ()
    while True:
        page = data(project, "ls", "--limit", "3", *after)
        seen += [one["letter"] for one in page["letters"]]
        if page["resume"] is None:
            break
        after = ("--after", page["resume"])
    assert seen == sorted(names, key=Place.parse)


async def test_search_ends_after_so_many_and_goes_on_there(redis_url: str, planted: Planted):
    for number in range(10):
        planted.bury("a", f"{number + 1}-0", "KeyError" if number in (1, 8) else "ValueError")
    async with Client(redis_url) as client:
        found: list[str] = []
        place: Place | None = None
        looked: list[int] = []
        while True:
            wanted = Wanted(error="KeyError", until_unix_ms=LATEST)
            search = Search(client.dead_letters, wanted, after=place, most=4)
            found += [str(one) async for one, _ in search.matches()]
            looked.append(search.looked_at)
            if search.is_over:
                break
            place = search.place
    partition = partition_of("a", PARTITIONS)
    assert found == [f"{partition}/2-0", f"{partition}/9-0"]
    assert looked == [4, 4, 2]


async def test_held_messages_are_read_in_order_however_many_fail(redis_url: str, planted: Planted):
    """More rows than Redis keeps in one small hash: HSCAN gives them in any order."""
    ids = [f"{number + 1}-0" for number in range(700)]
    for one in ids:
        planted.hold("a", one)
    async with Client(redis_url) as client:
        letters = client.dead_letters
        partition = partition_of("a", PARTITIONS)
        first = await letters.held(partition, after=ORIGIN, count=300)
        rest = await letters.held(partition, after=first[-1].letter_id, count=1_000)
    assert [one.letter_id for one in (*first, *rest)] == ids


def test_replay_takes_the_limit_and_goes_on_at_the_next_call(project: Project, planted: Planted):
    for number in range(70):
        planted.bury("a", f"{number + 1}-0")
    found = data(project, "replay", "--all", "--limit", "50")
    assert (found["replayed"], planted.dead()) == (50, 20)
    assert found["resume"] == f"{partition_of('a', PARTITIONS)}/50-0"
    found = data(project, "replay", "--all", "--after", found["resume"])
    assert (found["replayed"], found["resume"], planted.dead()) == (20, None, 0)
    assert len(planted.waiting("a")) == 70


def test_replay_stops_where_there_is_no_room(project: Project, planted: Planted):
    for _ in range(5):
        planted.bury("a")
    done = project.run("dlq", "replay", "--scope", "a", "--set", "backlog=3", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["replayed"] == 3
    assert "holds 3 unfinished entries" in done.stderr
    assert planted.dead() == 2


def test_drop_asks_and_deletes(project: Project, planted: Planted):
    first, second = planted.bury("a"), planted.bury("a")
    held = planted.hold("b", "5-0")
    assert data(project, "drop", "--scope", "a", "--dry-run")["dropped"] == 2
    asked = project.run("dlq", "drop", "--scope", "a", stdin="")
    assert asked.returncode == 2
    assert "give --yes" in asked.stderr
    assert planted.dead() == 2
    assert project.run("dlq", "drop", first, held).stdout == "2 letters dropped\n"
    assert planted.waiting("b") == []
    assert data(project, "drop", "--scope", "a", "--yes")["dropped"] == 1
    assert project.run("dlq", "drop", second).returncode == 1
    assert planted.waiting("a") == []


def test_payloads_are_readable_and_cannot_command_the_terminal(project: Project, planted: Planted):
    packed = msgpack.packb({"type": "t", "raw": b"\x00\xff", "text": "grün \x1b[31m"})
    assert packed is not None
    name = planted.bury(
        "a",
        "9-0",
        "Bad: \x1b[31m red\nmore",
        m=packed,
        k=b"m1",
        h=msgpack.packb({"traceparent": "x"}),
    )
    shown = project.run("dlq", "show", name).stdout
    assert '"$bytes": "AP8="' in shown
    assert "grün" in shown
    assert "message_id" in shown
    assert "traceparent" in shown
    assert "\x1b" not in shown + project.run("dlq", "ls").stdout
    assert data(project, "show", name)["message"]["raw"] == {"$bytes": "AP8="}
    broken = planted.bury("a", "10-0", "MessageError", message="no json")
    assert "(cannot be read) b'no json'" in project.run("dlq", "show", broken).stdout


def test_watching_shows_what_comes(project: Project, planted: Planted):
    with project.start("dlq", "ls", "--watch", "--every", "0.1", "--json") as watching:
        assert watching.process.stdout is not None
        assert json.loads(watching.process.stdout.readline())["letters"] == []
        name = planted.bury("a")
        found: list[str] = []
        while not found:
            line = json.loads(watching.process.stdout.readline())
            found = [one["letter"] for one in line["letters"]]
        assert found == [name]
        assert watching.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("replay",), "which ones?"),
        (("replay", "--all", "--scope", "a"), "--all chooses all"),
        (("drop", "1/1-0", "--scope", "a"), "not both"),
        (("drop", "1-0"), "names no dead letter"),
        (("show", "x"), "names no dead letter"),
        (("ls", "--older-than", "soon"), "is no age"),
        (("ls", "--after", "1"), "names no dead letter"),
    ],
)
def test_mistake_is_a_sentence(project: Project, arguments: tuple[str, ...], text: str):
    done = project.run("dlq", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_places_are_read_as_they_are_written():
    for text in ("7/12-0", "7/held/12-3"):
        assert str(Place.parse(text)) == text
    for text in ("7", "12-0", "a/1-0", "7/dead/1-0", "7/1"):
        with pytest.raises(ConfigError, match="dlq ls"):
            Place.parse(text)


def test_namespace_that_nobody_uses_is_not_made(project: Project, redis_server: Server):
    assert listed(project) == []
    assert project.run("dlq", "show", "1/1-0").returncode == 1
    assert data(project, "drop", "--all", "--yes")["dropped"] == 0
    assert redis_server.command("EXISTS", KEYS.meta) == b":0\r\n"
