"""The demo: a month of flights through real workers, ending with a checked table.

``scripts/demo`` runs this; ``scripts/demo --help`` tells what it does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from wherry import Client, Config, Worker
from wherry.broker.connect import open_store
from wherry.errors import WherryError

from .app import application
from .month import read_month, rows_by_scope
from .processes import ProcessFailed, worker_processes
from .produce import send_flights
from .progress import Progress, Stalled
from .report import check_answers, format_table, format_verdict, wait_for_answers

MAX_WORKERS = 64
INTERRUPTED = 130
_SCAN_COUNT = 1000


def parse_workers(arguments: Sequence[str] | None = None) -> int:
    """Read the command line: the number of workers to start."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="worker processes to start (2); 0 uses those that already serve the namespace",
    )
    workers = parser.parse_args(arguments).workers
    if not 0 <= workers <= MAX_WORKERS:
        parser.error(f"--workers is {workers}; it must lie between 0 and {MAX_WORKERS}")
    if workers == 0 and not os.environ.get("WHERRY_URL"):
        parser.error("--workers 0 uses workers that run already: name their store in WHERRY_URL")
    return workers


async def run_demo(url: str, namespace: str, workers: int) -> int:
    """Run the demo on one store and return the exit code.

    Args:
        url: of the store.
        namespace: of this run; removed at the end unless the workers are somebody else's.
        workers: processes to start; with ``memory://`` the worker runs in this process.
    """
    flights = read_month()
    rows = rows_by_scope(flights)
    progress = Progress(len(flights))
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(url, namespace=namespace))
        if url.startswith("memory://"):
            await stack.enter_async_context(worker_in_this_process(url, namespace))
        elif workers:
            stack.push_async_callback(remove_namespace, url, namespace)
            await stack.enter_async_context(worker_processes(url, namespace, workers))
        async with (
            asyncio.TaskGroup() as showing,
            progress.shown(showing),
            asyncio.TaskGroup() as working,
        ):
            working.create_task(send_flights(client, flights, progress.add_sent))
            working.create_task(wait_for_answers(client, rows, progress.add_answer))
        report = await check_answers(client, rows)
    print()
    print(format_table(report, duration_s=progress.duration_s))
    print(format_verdict(report))
    return 1 if report.problems else 0


@contextlib.asynccontextmanager
async def worker_in_this_process(url: str, namespace: str) -> AsyncGenerator[None]:
    """A worker beside the producer, in the same event loop."""
    worker = Worker(application, url, Config(namespace=namespace, durable_state=True))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.arun(), name="demo:worker")
        try:
            await worker.ready()
            yield
        finally:
            worker.request_stop()


async def remove_namespace(url: str, namespace: str) -> None:
    """Delete every key of a namespace."""
    store = open_store(url)
    link = store.link()
    try:
        cursor = b"0"
        while True:
            cursor, keys = await link.call(
                "SCAN", cursor, "MATCH", f"{{{namespace}[:}}]*", "COUNT", _SCAN_COUNT
            )
            if keys:
                await link.call("UNLINK", *keys)
            if cursor == b"0":
                break
    finally:
        await link.aclose()
        store.close()


async def main(workers: int) -> int:
    """Choose the store and run; SIGTERM ends the demo as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    url = os.environ.get("WHERRY_URL", "")
    if workers:
        namespace = f"demo-{secrets.token_hex(4)}"
    else:
        namespace = os.environ.get("WHERRY_NAMESPACE") or "wherry"
    with contextlib.ExitStack() as stack:
        if not url:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wherry-demo-"))
            url = f"embedded://{Path(directory).resolve()}"
        try:
            return await run_demo(url, namespace, workers)
        except* (ProcessFailed, Stalled, WherryError, BrokenPipeError) as errors:
            for error in flatten(errors):
                print(f"scripts/demo: {error}", file=sys.stderr)
        return 1


def flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors of a group and of the groups within."""
    return [
        one
        for error in group.exceptions
        for one in (flatten(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse_workers())))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nscripts/demo: interrupted; everything it started has ended", file=sys.stderr)
        sys.exit(INTERRUPTED)
