"""What README.md and docs/protocol.md show, run as they say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import rig, until, working
from tests.e2e.test_durable import DURABLE, totals
from tests.e2e.test_latencies import measuring
from tests.examples.processes import ROOT, processes
from wherry.broker.namespaces import set_pause
from wherry.broker.wire import unpack
from wherry.model import ScopeId

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for found, body in BLOCK.findall(text) if found == language]


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """A folder with the ten-line application."""
    [application] = [body for body in blocks("README.md", "python") if "# counter.py" in body]
    (tmp_path / "counter.py").write_text(application, encoding="utf-8")
    return tmp_path


@pytest.mark.limit_s(60)
async def test_readme_application_by_the_readme_commands(redis_url: str, counter: Path):
    [commands] = [body for body in blocks("README.md", "sh") if "wherry run" in body]
    lines = [line.split("#")[0].strip() for line in commands.splitlines()]
    assert lines[0] == "pip install 'wherry[server]'"
    assert lines[1] == "wherry run counter:app --durable-state"
    expected = json.loads(commands.split("# ", 2)[2].splitlines()[0])
    async with processes() as started:
        worker = await started.worker(
            *lines[1].split()[2:3], redis_url, "--durable-state", "--app-dir", str(counter)
        )
        await worker.worker_id()
        request = [sys.executable, "-m", "wherry", *_words(lines[2])[1:], "--url", redis_url]
        answer = await asyncio.to_thread(
            subprocess.run, request, capture_output=True, text=True, check=True
        )
        assert json.loads(answer.stdout) == expected
        client = _python_of("import wherry").replace("redis://localhost:6379", redis_url)
        names: dict[str, Any] = {}
        exec(client, names)  # noqa: S102 - the README's own snippet
        assert await names["count"]("alice") == 2


def test_readme_test_of_the_application(counter: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(counter))
    (counter / "readme_test.py").write_text(_python_of("def test_"), encoding="utf-8")
    runpy.run_path(str(counter / "readme_test.py"))["test_counts_survive_a_crash"]()


@pytest.mark.limit_s(60)
async def test_producer_of_the_protocol_page(redis_url: str, counter: Path):
    producer, consumer = blocks("docs/protocol.md", "python")
    async with processes() as started:
        worker = await started.worker(
            "counter:app", redis_url, "--durable-state", "--app-dir", str(counter)
        )
        await worker.worker_id()

        def run() -> dict[str, Any]:
            names: dict[str, Any] = {"url": redis_url}
            exec(producer, names)  # noqa: S102 - the page's own snippets
            exec(consumer, names)  # noqa: S102
            names["store"].close()
            return names

        names = await asyncio.to_thread(run)
    assert unpack(names["reply"][b"m"]) == {"type": "seen", "by": "alice", "count": 1}


@pytest.mark.parametrize("key", ["meta", "member", "lease", "scope"])
async def test_hashes_have_the_fields_of_the_protocol_page(redis_url: str, key: str):
    async with rig(redis_url) as seen:
        partition = seen.partition("s")
        names = seen.keys
        # Its owner died: that is written in its next lease.
        died = ("owner", "somebody", "token", "1:x", "epoch", "1", "expiry", "1")
        await seen.link.call("HSET", names.lease(partition), *died)
        async with working(totals, redis_url, kind=measuring, **DURABLE) as worker:
            await seen.send("s", 1)
            await seen.answered("s", 1)
            await set_pause(seen.link, names, paused=True)
            written = {
                "meta": names.meta,
                "member": names.member(worker.worker_id),
                "lease": names.lease(partition),
                "scope": names.state(partition, ScopeId("s")),
            }
            fields: set[str] = set()

            async def are_complete() -> bool:
                found = await seen.link.call("HKEYS", written[key])
                fields.clear()
                fields.update(field.decode() for field in found)
                return fields >= _documented(key)

            with contextlib.suppress(TimeoutError):
                await until(are_complete)  # some are told from the second beat on
    assert fields == _documented(key)


def _documented(key: str) -> set[str]:
    """The fields that the protocol page names in the row of a key."""
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| `[^`]*\}}:{key}\b[^|]*\| hash \| (.*) \|$", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def test_partition_of_the_protocol_page():
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    assert "redis-cli XADD '{wherry:7}:in'" in text


def _python_of(part: str) -> str:
    [body] = [one for one in blocks("README.md", "python") if part in one]
    return textwrap.dedent(body)


def _words(line: str) -> list[str]:
    return shlex.split(line)
