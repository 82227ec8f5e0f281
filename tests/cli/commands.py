"""Running the command line as people do: as processes, in a project directory of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import wherry
from tests.servers import wait_until

SOURCE = Path(wherry.__file__).parents[1]
LIMIT_S = 30.0

ECHO = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    while True:
        message = await receive()
        if message["type"] == "slow":
            await asyncio.sleep(60)
        for part in message.get("parts", [message.get("text", b"\\x00")]):
            await send({"type": "echo", "scope": scope["scope_id"], "part": part})
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command: no setting of the outer one, and the tested package."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("WHERRY_")}
    path = os.pathsep.join([str(SOURCE), *filter(None, [outer.get("PYTHONPATH")])])
    return outer | {"PYTHONPATH": path} | variables


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "wherry", *arguments]


class Project:
    """A directory with an application, `echo:app`, in which commands are run.

    Attributes:
        directory: the working directory of every command.
        url: the store that every command is told, or "".
    """

    def __init__(self, directory: Path, url: str = "") -> None:
        self.directory = directory
        self.url = url
        self.write("echo.py", ECHO)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def environment(self, **variables: str) -> dict[str, str]:
        return environment(**({"WHERRY_URL": self.url} if self.url else {}) | variables)

    def run(
        self, *arguments: str, stdin: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command(*arguments),
            cwd=self.directory,
            env=self.environment(**variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def lines(self, *arguments: str, **variables: str) -> list[Any]:
        """Run a command that succeeds, and return its JSON lines."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self, *arguments: str, **variables: str) -> Running:
        """Start a command."""
        return Running(arguments, self.directory, self.environment(**variables))

    def start_worker(self, *arguments: str, **variables: str) -> Running:
        """Start a worker and wait until it takes part."""
        worker = self.start("run", *(arguments or ("echo:app",)), **variables)
        try:
            worker.wait_for('"event": "ready"')
        except BaseException:
            worker.kill()
            raise
        return worker


class Running:
    """A command that runs; ended with the ``with`` block at the latest."""

    def __init__(
        self, arguments: Sequence[str], directory: Path, variables: dict[str, str]
    ) -> None:
        self._log = directory / f"stderr-{os.urandom(4).hex()}.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command(*arguments),
                cwd=directory,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def stderr(self) -> str:
        return self._log.read_text("utf-8")

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stderr.splitlines()]

    def wait_for(self, text: str) -> None:
        """Wait until it has said something on stderr."""

        def is_said() -> bool:
            if text in self.stderr:
                return True
            assert self.process.poll() is None, f"ended without {text!r}:\n{self.stderr}"
            return False

        wait_until(is_said, text, within_s=LIMIT_S)

    def stop(self, *signals: int) -> int:
        """Send signals, each when the one before was heard, and return the exit code."""
        for count, one in enumerate(signals, start=1):
            self.process.send_signal(one)
            if count < len(signals):
                self.wait_for("a second one hands back at once")
        return self.process.wait(LIMIT_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
