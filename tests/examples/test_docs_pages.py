"""The files that docs/fastapi.md and docs/from-runworker.md show, run as the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from scripts.ports import free_port
from tests.examples.processes import ROOT, processes
from wherry import Client

FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def write_files(page: str, directory: Path) -> list[str]:
    """Write the files that a page shows; return their names."""
    found = FILE.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    for name, text in found:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [name for name, _ in found]


def whole_programs(page: str) -> list[str]:
    """Return the snippets of a page that are no files: each runs by itself."""
    text = FILE.sub("", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("page", "count"), [("fastapi.md", 1), ("from-runworker.md", 3)])
def test_snippets_run(page: str, count: int):
    programs = whole_programs(page)
    assert len(programs) == count
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{program}\n{done.stderr}"
        assert done.stderr == ""


@pytest.mark.limit_s(60)
async def test_fastapi_page(redis_url: str, tmp_path: Path):
    assert write_files("fastapi.md", tmp_path) == ["worker.py", "web.py"]
    port = free_port()
    async with processes() as started:
        place = ("--app-dir", str(tmp_path))
        worker = await started.worker("worker:application", redis_url, "--durable-state", *place)
        web = await started.python(
            *("-m", "uvicorn", "web:app", "--port", str(port), *place),
            env={"WHERRY_URL": redis_url},
        )
        await worker.worker_id()
        await web.until_it_says("Uvicorn running")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.post("/customers/7/later/tea")).status_code == 202
            assert (await http.post("/customers/7/items/tea")).json() == {"tea": 2}
            assert (await http.post("/customers/8/items/cup")).json() == {"cup": 1}


@pytest.mark.limit_s(60)
async def test_a_web_application_is_refused_with_the_page_that_helps(
    redis_url: str, tmp_path: Path
):
    write_files("fastapi.md", tmp_path)
    async with processes() as started:
        worker = await started.worker("web:app", redis_url, "--app-dir", str(tmp_path))
        assert "docs/fastapi.md" in await worker.until_it_says("FastAPI")
        assert await worker.process.wait() == 2


@pytest.mark.limit_s(60)
async def test_from_runworker_page(redis_url: str, tmp_path: Path):
    assert write_files("from-runworker.md", tmp_path) == ["project/asgi.py"]
    async with processes() as started, Client(redis_url) as client:
        flags = ("--channel", "thumbnails", "--app-dir", str(tmp_path))
        worker = await started.worker("project.asgi:application", redis_url, *flags)
        await worker.worker_id()
        message = {"type": "thumbnail.make", "image": 7, "notify": "user-1"}
        made = [{"type": "thumbnail.made", "image": 7}]
        assert await client.request("user:1", message) == made
        assert await client.request("user:1", message, channel="thumbnails") == made
