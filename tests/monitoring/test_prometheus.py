"""Prometheus itself reads deploy/monitoring and scrapes a real worker, where it is installed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from scripts.ports import free_port
from tests.cli.commands import Project
from tests.e2e.rig import until
from tests.examples.processes import ROOT
from tests.monitoring.asking import Answer, address_of, say
from tests.monitoring.queries import MONITORING, queries, rules
from tests.test_docs import blocks
from wherry.client import Client

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
FAILING = """
async def app(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "bad":
            raise ValueError("no")
        await send({"type": "done"})
"""


def config(name: str, address: str) -> dict[str, Any]:
    """A configuration of ours whose workers are found at an address."""
    file = yaml.safe_load((MONITORING / name).read_text("utf-8"))
    [job] = file["scrape_configs"]
    [found_by] = [one for one in job if one.endswith("_sd_configs")]
    del job[found_by]
    job["static_configs"] = [{"targets": [address]}]
    return file


def promtool(*arguments: str, directory: Path = MONITORING) -> str:
    done = subprocess.run(
        [PROMTOOL or "", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_rules_pass_their_tests():
    assert f"{len(rules())} rules found" in promtool("check", "rules", "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


@needs_promtool
def test_a_rule_that_changes_fails_its_test(tmp_path: Path):
    for rule in rules():
        shutil.copy(MONITORING / "rules_test.yml", tmp_path)
        text = (MONITORING / "rules.yml").read_text("utf-8")
        text = text.replace(f"alert: {rule['alert']}\n", f"alert: {rule['alert']}Not\n")
        (tmp_path / "rules.yml").write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError, match=rule["alert"]):
            promtool("test", "rules", "rules_test.yml", directory=tmp_path)


@needs_promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_configuration_is_valid(tmp_path: Path, name: str):
    # Not every build of Prometheus knows Kubernetes; how pods are found is left out.
    shutil.copy(MONITORING / "rules.yml", tmp_path)
    (tmp_path / name).write_text(yaml.safe_dump(config(name, "127.0.0.1:9090")), encoding="utf-8")
    assert "is valid prometheus config" in promtool("check", "config", name, directory=tmp_path)


async def ask(address: str, path: str) -> Answer:
    """One question, after whose answer the connection ends, as it did with HTTP 1.0."""
    return await say(address, f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        answer = await ask(self._address, f"/api/v1/{path}?{urlencode(parameters)}")
        found = answer.json()
        assert found["status"] == "success", (path, parameters, found)
        return found["data"]

    async def value(self, query: str) -> float | None:
        found = (await self.ask("query", query=query))["result"]
        return float(found[0]["value"][1]) if found else None


@asynccontextmanager
async def prometheus(directory: Path, worker: str) -> AsyncGenerator[Prometheus]:
    """Prometheus with our configuration, but for the place of the worker and shorter intervals."""
    file = config("prometheus.yml", worker.removeprefix("http://"))
    file["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    shutil.copy(MONITORING / "rules.yml", directory)
    (directory / "prometheus.yml").write_text(yaml.safe_dump(file), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(PROMETHEUS or "", "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
            f"--web.listen-address={address}",
            cwd=directory,
            stdout=log,
            stderr=log,
        )
    try:

        async def is_ready() -> bool:
            assert process.returncode is None, (directory / "prometheus.log").read_text("utf-8")
            try:
                return (await ask(f"http://{address}", "/-/ready")).status == 200
            except OSError:
                return False

        await until(is_ready, 30)
        yield Prometheus(f"http://{address}")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@needs_prometheus
@pytest.mark.limit_s(120)
async def test_prometheus_scrapes_a_worker_and_evaluates_every_query(
    redis_url: str, tmp_path: Path
):
    project = Project(tmp_path, redis_url)
    project.write("failing.py", FAILING)
    settings = ("failing:app", "--http-port", "0", "--set", "max_attempts=1", "--partitions", "4")
    worker = await asyncio.to_thread(project.start_worker, *settings)
    try:
        async with Client(redis_url) as client:
            await client.send("poisoned", {"type": "bad"})
            await client.request("alice", {"type": "good"})
        async with prometheus(tmp_path, address_of(worker)) as seen:

            async def is_told() -> bool:
                return await seen.value('wherry_dead_letters{namespace="wherry"}') == 1

            await until(is_told, 30)
            assert await seen.value('up{job="wherry"}') == 1
            assert await seen.value("sum(wherry_messages_total)") == 2
            for _, query in queries():
                await seen.ask("query", query=query)

            async def dead_letters_alone_are_told() -> Any:
                [group] = (await seen.ask("rules"))["groups"]
                assert [one["name"] for one in group["rules"]] == [one["alert"] for one in rules()]
                health = {one["health"] for one in group["rules"]}
                # One after another they learn that there is a worker.
                told = {one["name"] for one in group["rules"] if one["state"] != "inactive"}
                return health == {"ok"} and told == {"WherryDeadLetters"}

            await until(dead_letters_alone_are_told, 30)
    finally:
        await asyncio.to_thread(worker.kill)


@needs_promtool
def test_command_of_the_page():
    [line] = [one for body in blocks("docs/monitoring.md", "console") for one in body.splitlines()]
    done = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("$ ")], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
