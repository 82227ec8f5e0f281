"""The Compose file and the Dockerfile: valid, safe to scale, and what they say runs.

No Docker engine is used: the commands, environments and health test of the file are started as
plain processes, with service names and container paths translated to this machine's.
``docs/deployment.md`` lists what only an engine can show.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from scripts.ports import free_port
from tests.servers import available_servers, wait_until
from wherry import Config

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = Path(__file__).parent / "data" / "compose_spec.json"
WORKERS = 3


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def seconds(duration: str) -> float:
    """Read a Compose duration such as ``1m30s``."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+)([hms])", duration)
    assert "".join(number + unit for number, unit in parts) == duration
    return sum(int(number) * units[unit] for number, unit in parts)


def validator() -> jsonschema.Draft201909Validator:
    return jsonschema.Draft201909Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_compose_file_is_valid():
    validator().validate(compose())


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file["services"]["worker"].update(comand=["run"]),
        lambda file: file["services"]["worker"].update(init="perhaps"),
        lambda file: file["services"]["redis"]["healthcheck"].update(test={"CMD": "x"}),
        lambda file: file.update(services=[]),
    ],
)
def test_schema_notices_mistakes(damage: Callable[[dict[str, Any]], None]):
    file = copy.deepcopy(compose())
    damage(file)
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(file)


def test_redis_keeps_what_it_was_given():
    redis = compose()["services"]["redis"]
    assert redis["command"][redis["command"].index("--appendonly") + 1] == "yes"
    assert redis["command"][redis["command"].index("--maxmemory-policy") + 1] == "noeviction"
    volume, path = redis["volumes"][0].split(":")
    assert volume in compose()["volumes"]
    assert path == "/data"  # where the image's server keeps its files
    assert "ports" not in redis  # no password: for this network only


def test_workers_can_be_scaled_and_drain_in_time():
    worker = compose()["services"]["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker
    assert worker["environment"]["WHERRY_EMBEDDED"] == "0"
    assert seconds(worker["stop_grace_period"]) > Config().drain_timeout_s + 5
    assert worker["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_what_is_not_needed_runs_only_when_asked_for():
    services = compose()["services"].items()
    assert {name: one["profiles"] for name, one in services if "profiles" in one} == {
        "producer": ["demo"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }


Instruction = tuple[str, str]


def dockerfile() -> list[list[Instruction]]:
    """Return the instructions of each stage."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            if name == "FROM":
                stages.append([])
            stages[-1].append((name, rest.strip()))
    return stages


def image() -> dict[str, Any]:
    """Return what the last stage says of the processes that it runs."""
    found: dict[str, Any] = {"ENV": {}, "COPY": []}
    for name, rest in dockerfile()[-1]:
        if name == "ENV":
            found["ENV"] |= dict(one.split("=", 1) for one in shlex.split(rest))
        elif name == "COPY":
            found["COPY"].append(rest.split())
        elif name in ("ENTRYPOINT", "CMD"):
            found[name] = json.loads(rest)  # the exec form is JSON; the shell form is not
        else:
            found[name] = rest
    return found


def test_image_runs_python_itself_as_an_ordinary_user():
    found = image()
    assert found["ENTRYPOINT"] == ["wherry"]
    assert int(found["USER"]) > 0
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert found["ENV"]["WHERRY_EMBEDDED"] == "0"
    assert "slim" in found["FROM"]


def is_sent_to_the_engine(path: Path) -> bool:
    """Whether ``.dockerignore`` lets a path through; the last pattern that fits decides."""
    sent = True
    parts = path.relative_to(ROOT).parts
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        names = parts if "**/" in line else parts[:1]
        if any(fnmatch.fnmatch(name, pattern) for name in names):
            sent = line.startswith("!")
    return sent


def test_image_is_made_of_what_is_there_and_of_nothing_else():
    copied = [
        source
        for stage in dockerfile()
        for name, rest in stage
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert is_sent_to_the_engine(ROOT / source), source
    assert is_sent_to_the_engine(ROOT / "examples" / "flights" / "flights-2013-01.csv.gz")
    for unwanted in (".git", ".venv", ".wherry", "tests", "src/wherry/__pycache__"):
        assert not is_sent_to_the_engine(ROOT / unwanted), unwanted


class Containers:
    """Starts services of the Compose file as plain processes of this machine."""

    def __init__(self, directory: Path) -> None:
        self.file = compose()
        self.image = image()
        self.port = free_port()
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._commands = directory / "bin"
        self._app = directory / "app"
        self._make_commands()
        for *sources, target in self.image["COPY"]:
            if not sources[0].startswith("--from"):
                shutil.copytree(ROOT / sources[0], self._app / target)

    def _make_commands(self) -> None:
        """What the images have on their PATH."""
        self._commands.mkdir()
        server = next(iter(available_servers().values()))
        self._script("redis-server", f'exec "{server}" "$@"')
        self._script("python", f'exec "{sys.executable}" "$@"')
        self._script("wherry", f'exec "{sys.executable}" -m wherry "$@"')
        # The image's own redis-cli asks port 6379 of its container.
        asking = (
            "import socket, sys\n"
            f"server = socket.create_connection(('127.0.0.1', {self.port}), 2)\n"
            "server.sendall(' '.join(sys.argv[1:]).encode() + b'\\r\\n')\n"
            "print(server.recv(4096).decode().strip().lstrip('+-'))"
        )
        program = self._commands / "redis_cli.py"
        program.write_text(asking, encoding="utf-8")
        # No first line of a script can name a Python whose path has a space.
        self._script("redis-cli", f'exec "{sys.executable}" "{program}" "$@"')

    def _script(self, name: str, text: str) -> None:
        path = self._commands / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a service, with service names as addresses of this machine."""
        own = {} if service == "redis" else dict(self.image["ENV"])
        own |= self.file["services"][service].get("environment", {})
        own.pop("PATH", None)
        # Containers have an address each, where all may serve on one port.
        here = {"WHERRY_HTTP_HOST": "127.0.0.1", "WHERRY_HTTP_PORT": "0"}
        translated = {
            name: str(here.get(name, value)).replace("redis:6379", f"127.0.0.1:{self.port}")
            for name, value in own.items()
        }
        kept = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
        return kept | translated | {"PATH": f"{self._commands}:/usr/bin:/bin"}

    def command(self, service: str) -> list[str]:
        """The command line of a service: entrypoint and command, its own or the image's."""
        said = self.file["services"][service]
        if service == "redis":  # its image's entrypoint starts the command as it is
            data = self._directory / "data"
            data.mkdir()
            place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(data)]
            return [*said["command"], *place]
        entrypoint = said.get("entrypoint")
        # An entrypoint of the service discards the image's command, too.
        command = said.get("command", [] if entrypoint else self.image["CMD"])
        return [*(entrypoint or self.image["ENTRYPOINT"]), *command]

    def start(self, service: str) -> subprocess.Popen[bytes]:
        number = len(self._processes)
        with (self._directory / f"{service}-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(service),
                cwd=self._app if service != "redis" else self._directory,
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def log(self, process: subprocess.Popen[bytes]) -> str:
        number = self._processes.index(process)
        return next(self._directory.glob(f"*-{number}.log")).read_text("utf-8", "replace")

    def is_healthy(self, service: str) -> bool:
        """Run the health test of a service once."""
        test = self.file["services"][service]["healthcheck"]["test"]
        assert test[0] == "CMD-SHELL"
        return (
            subprocess.run(
                ["/bin/sh", "-c", test[1]],
                env=self.environment(service),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            ).returncode
            == 0
        )

    def stop(self, process: subprocess.Popen[bytes], service: str) -> int:
        """End a process as an engine does: its stop signal, then the grace period."""
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds(self.file["services"][service]["stop_grace_period"]))

    def kill_all(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextlib.contextmanager
def containers(directory: Path) -> Iterator[Containers]:
    found = Containers(directory)
    try:
        yield found
    finally:
        found.kill_all()


def test_one_redis_three_workers_and_a_producer_run_as_the_file_says(tmp_path: Path):
    with containers(tmp_path) as stack:
        assert not stack.is_healthy("redis")
        redis = stack.start("redis")
        wait_until(lambda: stack.is_healthy("redis"), "redis is healthy", 20)
        workers = [stack.start("worker") for _ in range(WORKERS)]
        for worker in workers:
            wait_until(lambda one=worker: '"event": "ready"' in stack.log(one), "ready", 30)
        producer = stack.start("producer")
        assert producer.wait(120) == 0, stack.log(producer)
        assert "check: all 3,149 totals equal" in stack.log(producer)
        for worker in workers:
            assert worker.poll() is None, stack.log(worker)
            assert stack.stop(worker, "worker") == 0, stack.log(worker)
        assert stack.stop(redis, "redis") == 0


def test_a_worker_that_is_not_told_where_redis_is_says_so(tmp_path: Path):
    with containers(tmp_path) as stack:
        del stack.file["services"]["worker"]["environment"]["WHERRY_URL"]
        worker = stack.start("worker")
        assert worker.wait(30) == 2
        assert "WHERRY_URL" in stack.log(worker)
