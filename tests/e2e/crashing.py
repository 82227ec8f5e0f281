"""A worker as a process of its own, for tests that kill it (``python -m`` and the URL)."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from tests.e2e.rig import QUICK
from wherry import Config, Worker


async def totals(scope: Any, receive: Any, send: Any) -> None:
    """Answer each message with the running total."""
    durable = scope["durable"]
    while True:
        message = await receive()
        durable["total"] = durable.get("total", 0) + message["number"]
        await asyncio.sleep(0.001)
        await send({"type": "total", "number": durable["total"]})


async def main(url: str) -> None:
    config = Config(**QUICK | {"durable_state": True, "lease_s": 0.9, "max_applications": 30})
    worker = Worker(totals, url, config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.request_stop)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.arun())
        await worker.ready()
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
