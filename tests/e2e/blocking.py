"""A worker as a process of its own whose application blocks the event loop when a message says so.

``python -m tests.e2e.blocking URL DIRECTORY``: each attempt is noted in the directory, and what the
worker warns of is printed, one JSON line each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.e2e.rig import QUICK
from wherry import Config, Worker
from wherry.hooks import Hooks

LEASE_S = 0.9
SETTINGS: dict[str, Any] = QUICK | {"durable_state": True, "lease_s": LEASE_S, "beat_s": 0.15}


class Tells(Hooks):
    """Prints warnings; they may come from the renewal's thread."""

    __slots__ = ()

    def warn(self, event: str, **data: object) -> None:
        print(json.dumps({"event": event, **data}, default=str), flush=True)


async def main(url: str, directory: Path) -> None:
    async def totals(scope: Any, receive: Any, send: Any) -> None:
        durable = scope["durable"]
        while True:
            message = await receive()
            with (directory / "attempts").open("a") as attempts:
                attempts.write(f"{os.getpid()} {scope['scope_id']} {message['number']}\n")
            durable["total"] = durable.get("total", 0) + message["number"]
            if message.get("block_s") and _is_first(directory / str(message["number"])):
                time.sleep(message["block_s"])  # noqa: ASYNC251 - the fault under test
            await send({"type": "total", "number": durable["total"]})

    worker = Worker(totals, url, Config(**SETTINGS), hooks=Tells())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.request_stop)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.arun())
        await worker.ready()
        print("ready", flush=True)


def _is_first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
