"""Which of our errors stands for which answer of Redis, over each way to ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wherry.broker.connect import Store, open_store
from wherry.broker.redirects import Redirected
from wherry.errors import StoreError, StoreRefused, StoreUnavailable, WherryError

TRANSIENT = [
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "READONLY You can't write against a read only replica.",
    "READONLY You can't write against a read only replica. script: f00, on @user_script:1.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN Hash slot not served",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist to disk.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "ERR max number of clients reached",
]
REDIRECTS = ["MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381"]
REFUSED = [
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "ERR ACL failure in script: this user has no permissions to run the 'xdel' command",
]
OTHER = [
    "ERR unknown command 'PANG', with args beginning with: ",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOSCRIPT No matching script. Please use EVAL.",
    "CROSSSLOT Keys in request don't hash to the same slot",
]
EXPECTED: list[tuple[str, type[WherryError]]] = [
    *((answer, StoreUnavailable) for answer in TRANSIENT),
    *((answer, Redirected) for answer in REDIRECTS),
    *((answer, StoreRefused) for answer in REFUSED),
    *((answer, StoreError) for answer in OTHER),
]


@asynccontextmanager
async def refusing(answer: str) -> AsyncGenerator[Store]:
    """A server that greets its clients and answers everything else with one error."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            words: list[bytes] = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            is_greeting = words[0].upper() == b"CLIENT"
            writer.write(b":1\r\n" if is_greeting else f"-{answer}\r\n".encode())
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield open_store(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        async with asyncio.timeout(5):
            await done.wait()


async def _raised(answer: str, ask: Callable[[Store], Any]) -> WherryError:
    async with refusing(answer) as store:
        with pytest.raises(WherryError) as caught:
            await ask(store)
    return caught.value


async def _call(store: Store) -> None:
    link = store.link()
    try:
        await link.call("PANG")
    finally:
        await link.aclose()


async def _calls(store: Store) -> None:
    link = store.link()
    try:
        for answer in await link.calls([("PANG",), ("PONG",)]):
            raise answer
    finally:
        await link.aclose()


async def _call_blocking(store: Store) -> None:
    link = store.sync_link()
    try:
        await asyncio.to_thread(link.call, "PANG")
    finally:
        link.close()


async def _call_single(store: Store) -> None:
    link = store.single_link()
    try:
        await link.call("PANG")
    finally:
        await link.aclose()


@pytest.mark.parametrize("ask", [_call, _calls, _call_single, _call_blocking])
@pytest.mark.parametrize(("answer", "expected"), EXPECTED)
async def test_error_answer_says_what_can_be_done(
    answer: str, expected: type[WherryError], ask: Callable[[Store], Any]
):
    error = await _raised(answer, ask)
    is_elsewhere = answer.startswith(("MOVED", "ASK"))  # a kind of its own: it says where
    assert type(error) is (Redirected if is_elsewhere else expected), error
    assert isinstance(error, expected)
    assert "127.0.0.1" in str(error)
