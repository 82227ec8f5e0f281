from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.client.owner import heard, owner, say
from tests.servers import Server, wait_until
from wherry.client import SyncClient
from wherry.config import Config
from wherry.errors import ClientClosed, ConfigError, MessageError, MessageFailed, RequestTimeout
from wherry.model import Reply, Restarted


def serve(url: str, count: int) -> None:
    """Answer so many messages to "scope" with their number doubled, in a loop of its own."""

    async def main() -> None:
        async with asyncio.timeout(20), owner(url) as worker:
            for _ in range(count):
                entry = (await worker.entries("scope"))[0]
                if entry.message["type"] == "bad":
                    await worker.bury(entry, "ValueError: bad")
                else:
                    await worker.commit(entry, *heard(2 * entry.message["number"]))

    asyncio.run(main())


def in_thread(work: Callable[[], object]) -> Future[object]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wherry-client"]


def test_every_call_of_the_client_is_there(url: str):
    with SyncClient(url) as client:
        serving = in_thread(lambda: serve(url, 5))
        assert client.request("scope", say(1), channel="route") == heard(2)
        events = list(client.request_stream("scope", say(2)))
        assert [event.message for event in events if isinstance(event, Reply)] == heard(4)
        first = client.send("scope", say(3), message_id="m")
        assert client.send("scope", say(3), message_id="m") == first
        many = client.send_many([("scope", say(4))])
        with pytest.raises(MessageFailed, match="ValueError: bad"):
            client.request("scope", {"type": "bad"})
        serving.result(10)
        replies = [event for event in client.replies("scope") if isinstance(event, Reply)]
        messages = [reply.message for reply in replies]
        assert messages == [*heard(2, 4, 6, 8), None]
        assert [reply.cause for reply in replies[2:4]] == [first, *many]
        assert list(client.replies("scope", after=replies[3].id)) == replies[4:]
    assert client_threads() == []


def test_following_in_a_thread(url: str):
    with SyncClient(url) as client:
        events = client.replies("scope", follow=True, heartbeat_s=0.05)
        assert next(events) is None
        serving = in_thread(lambda: serve(url, 1))
        client.send("scope", say(1))
        serving.result(10)
        reply = next(event for event in events if event is not None)
        assert isinstance(reply, Reply)
        assert reply.message == heard(2)[0]
        events.close()
        assert not isinstance(reply, Restarted)


def test_errors_are_the_clients(url: str):
    with pytest.raises(ConfigError):
        SyncClient(url, namespace="a b")
    with SyncClient(url) as client:
        with pytest.raises(MessageError):
            client.send("", say(0))
        with pytest.raises(RequestTimeout):
            client.request("scope", say(0), timeout_s=0.05)
        with pytest.raises(TypeError):
            client.send("scope", say(0), chanel="typo")  # pyright: ignore[reportCallIssue]


def test_nothing_is_started_before_first_use():
    client = SyncClient("redis://127.0.0.1:1")
    assert client_threads() == []
    client.close()
    with pytest.raises(ClientClosed):
        client.send("scope", say(0))


def test_threads_share_one_client(redis_server: Server):
    with SyncClient(redis_server.url, partitions=4) as client:
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda n: client.send(f"s{n % 5}", say(n)), range(400)))
        assert len(ids) == 400
        assert len(client_threads()) == 1
        lengths = [redis_server.command("XLEN", f"{{wherry:{p}}}:in") for p in range(4)]
    assert sum(int(answer[1:]) for answer in lengths) == 400


def test_it_works_in_the_thread_of_a_running_loop(url: str):
    async def main() -> None:
        with SyncClient(url) as client:
            serving = in_thread(lambda: serve(url, 1))
            assert client.request("scope", say(1)) == heard(2)
            serving.result(10)

    asyncio.run(main())


def test_closing_ends_calls_of_other_threads(url: str):
    client = SyncClient(url)
    waiting = [in_thread(lambda: client.request("scope", say(0))) for _ in range(3)]
    events = client.replies("scope", follow=True)
    following = in_thread(lambda: next(events))

    def all_wait() -> bool:
        inner = client._background and client._background.client
        return (
            inner is not None
            and sum(len(place.waiting) for place, _ in inner._inbox._places.values()) == 3
            and any(tail.cursor is not None for tail in inner._followers._tails.values())
        )

    wait_until(all_wait, "all wait for what never comes")
    client.close()
    for future in (*waiting, following):
        with pytest.raises(ClientClosed):
            future.result(10)
    assert client_threads() == []
    client.close()


def test_forgotten_client_ends_its_thread(redis_url: str):
    client = SyncClient(redis_url)
    client.send("scope", say(0))
    assert len(client_threads()) == 1
    del client
    gc.collect()
    wait_until(lambda: client_threads() == [], "the thread ends")


def test_child_process_gets_a_client_of_its_own(redis_url: str):
    with SyncClient(redis_url, config=Config(partitions=1)) as client:
        client.send("scope", say(0))
        events = client.replies("scope", follow=True, heartbeat_s=0.01)
        assert next(events) is None
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            outcome = "failed"
            signal.alarm(10)  # ends it if it waits for the parent's thread
            try:
                try:
                    next(events)
                except ClientClosed:
                    outcome = client.send("scope", say(1))
                    client.close()
            finally:
                os.write(writes, outcome.encode())
                os._exit(0)
        os.close(writes)
        with os.fdopen(reads) as pipe:
            in_child = pipe.read()
        os.waitpid(child, 0)
        assert in_child not in ("", "failed")
        last = client.send("scope", say(2))
        assert next(events) is None
        events.close()

    async def numbers() -> list[tuple[str, object]]:
        async with owner(redis_url) as worker:
            entries = await worker.entries("scope", 3)
            return [(entry.id, entry.message["number"]) for entry in entries]

    assert asyncio.run(numbers())[1:] == [(in_child, 1), (last, 2)]


def test_interrupted_call_is_cancelled(redis_url: str):
    """As by Ctrl-C: the waiting call raises, and nothing of it stays behind."""

    class Interrupted(BaseException):
        """Stands for KeyboardInterrupt, which would end the test run if it escaped."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    with SyncClient(redis_url) as client:
        client.send("scope", say(0))
        background = client._background
        assert background is not None
        places = background.client._inbox._places
        main = threading.main_thread().ident

        def interrupt_when_waiting() -> None:
            wait_until(lambda: any(place.waiting for place, _ in places.values()), "it waits")
            assert main is not None
            signal.pthread_kill(main, signal.SIGUSR1)

        previous = signal.signal(signal.SIGUSR1, interrupt)
        try:
            interrupting = in_thread(interrupt_when_waiting)
            with pytest.raises(Interrupted):
                client.request("scope", say(1))
            interrupting.result(10)
        finally:
            signal.signal(signal.SIGUSR1, previous)
        wait_until(lambda: not any(p.is_watched for p, _ in places.values()), "it is forgotten")


def test_abandoned_iterator_is_forgotten(redis_url: str):
    with SyncClient(redis_url) as client:
        events = client.replies("scope", follow=True, heartbeat_s=0.01)
        next(events)
        background = client._background
        assert background is not None
        assert background.client._followers._tails
        del events
        gc.collect()
        assert not background.client._followers._tails
