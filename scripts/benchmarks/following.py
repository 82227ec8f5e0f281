"""Following: a process with one client that follows many scopes, for the scenario *followers*.

    python -m scripts.benchmarks.following URL SCOPES

says ``ready`` when it follows them all. After each line on its input that says how many replies to
await it says what came, as JSON: for each reply its scope, its number, and the ms to the follower's
hand, from its writing and from the appending of the message that it answers. Their ids carry the
server's time; both run on one computer. Each scope must have one reply to begin with.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from wherry import Client
from wherry.model import Reply

from .loop import new_loop
from .process import ROOT

_FOLLOWING_S = 120.0
_QUIET_S = 30.0

Taken = tuple[str, int, float, float]
"""Scope, number of the message, ms from its writing, ms from the appending of the message."""


class _Crowd:
    """The followers of one client, and what they have taken."""

    def __init__(self, client: Client, scopes: list[str]) -> None:
        self._client = client
        self._scopes = scopes
        self._taken: list[Taken] = []
        self._live = asyncio.Semaphore(0)
        self._news = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            followers = [tasks.create_task(self._follow(scope)) for scope in self._scopes]
            async with asyncio.timeout(_FOLLOWING_S):
                for _ in followers:
                    await self._live.acquire()
            # As an application with so many followers should: the collector of cycles would stop
            # it for tenths of a second now and then, to walk over all of them.
            gc.collect()
            gc.freeze()
            print("ready", flush=True)
            while wanted := int(await asyncio.to_thread(sys.stdin.readline) or 0):
                while len(self._taken) < wanted:
                    self._news.clear()
                    async with asyncio.timeout(_QUIET_S):
                        await self._news.wait()
                print(json.dumps(self._taken), flush=True)
                self._taken.clear()
            for one in followers:
                one.cancel()

    async def _follow(self, scope: str) -> None:
        is_begun = False
        async for event in self._client.replies(scope, follow=True):
            if not isinstance(event, Reply) or event.message is None:
                raise RuntimeError(f"scope {scope} is told {event}")
            if is_begun:
                ages = (_age_ms(event.id), _age_ms(event.cause))
                self._taken.append((scope, event.message["n"], *ages))
                self._news.set()
            else:
                is_begun = True
                self._live.release()


def _age_ms(entry_id: str) -> float:
    return 1000 * time.time() - int(entry_id.partition("-")[0])


async def follow(url: str, scopes: int) -> None:
    """Follow ``user-0`` and so on until what is awaited has come."""
    async with Client(url) as client:
        await _Crowd(client, [f"user-{number}" for number in range(scopes)]).run()


class Following:
    """The process, seen from outside.

    Attributes:
        pid: its process id.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def wait_ready(self) -> None:
        """Return when it follows."""
        self._read()

    def await_replies(self, count: int) -> list[Taken]:
        """Wait until so many have come; return them in the order of coming."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return [tuple(one) for one in json.loads(self._read())]

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the followers have ended with code {self._process.wait()}")
        return line


@contextlib.contextmanager
def running_followers(url: str, scopes: int) -> Iterator[Following]:
    """The process; it may not follow yet."""
    command = [sys.executable, "-m", "scripts.benchmarks.following", url, str(scopes)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Following(process)
            process.communicate()  # the end of its input is that of the following
        except BaseException:
            process.kill()
            raise


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(follow(sys.argv[1], int(sys.argv[2])))
