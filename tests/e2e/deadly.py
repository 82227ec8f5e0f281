"""A worker that some messages kill, as a process of its own (``python -m``, URL, settings)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

from tests.e2e.rig import QUICK
from wherry import Config, Worker


class _Lines(logging.Handler):
    """Prints events as JSON lines, for the test to count."""

    def emit(self, record: logging.LogRecord) -> None:
        entry = getattr(record, "entry", "")
        print(json.dumps({"event": record.getMessage(), "entry": entry}), flush=True)


async def deadly(scope: Any, receive: Any, send: Any) -> None:
    """Answer each message with the running total, but die of some of them."""
    durable = scope["durable"]
    while True:
        message = await receive()
        if message["type"] == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        if message["type"] == "hang":
            await asyncio.Event().wait()
        if message["type"] == "raise":
            raise ValueError("no")
        durable["total"] = durable.get("total", 0) + message["number"]
        await asyncio.sleep(message.get("lasts_s", 0.001))
        await send({"type": "total", "number": durable["total"]})


async def main(url: str, settings: dict[str, Any]) -> None:
    logging.getLogger("wherry").addHandler(_Lines())
    config = Config(**QUICK | {"durable_state": True, "lease_s": 0.9} | settings)
    worker = Worker(deadly, url, config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.request_stop)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.arun())
        await worker.ready()
        print(json.dumps({"event": "ready"}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
