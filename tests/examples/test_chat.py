"""The chat example over real HTTP: cut, killed, stopped, and the text is whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import redis.asyncio

from examples.chat.model import answer_to
from examples.chat.web import format_event, server_sent_events
from scripts.ports import free_port
from tests.examples.processes import Running, processes
from wherry import Client, Reply, Restarted
from wherry.model import EntryId, ScopeId, partition_of

APPLICATION = "examples.chat.app:application"
FLAGS = ("--durable-state", "--namespace", "chat")
STOP_S = 0.2
QUESTION = "What is a wherry?"


@dataclass
class Event:
    """One Server-Sent Event."""

    kind: str
    data: dict[str, Any]
    id: str = ""


@dataclass
class Browser:
    """Does what the page's script does with the events of one chat.

    Attributes:
        texts: words of each answer, by cause.
        ends: last event of each answer that has ended.
        restarted: causes that began anew.
        last_id: what an EventSource sends when it reconnects.
        ids: of all events that it was given, over all connections.
    """

    http: httpx.AsyncClient
    chat: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    restarted: list[str] = field(default_factory=list)
    last_id: str = ""
    ids: list[str] = field(default_factory=list)

    async def ask(self, text: str = QUESTION, key: str | None = None) -> str:
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.http.post(
            f"/chats/{self.chat}/questions", json={"text": text}, headers=headers
        )
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def stop(self) -> None:
        assert (await self.http.post(f"/chats/{self.chat}/stop")).status_code == 202

    async def events(self) -> AsyncGenerator[Event]:
        """Connect, behind what was seen before, and take events for as long as they are read."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        url = f"/chats/{self.chat}/events"
        async with self.http.stream("GET", url, headers=headers, timeout=30) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line.startswith(":"):
                    yield Event("heartbeat", {})
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    event = Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                    fields = {}
                    self._take(event)
                    yield event
                else:
                    fields = {}

    def _take(self, event: Event) -> None:
        cause = event.data.get("cause", "")
        if event.kind == "word":
            if event.data["index"] == 0:
                self.texts[cause] = []
            self.texts[cause].append(event.data["text"])
        elif event.kind == "end":
            self.ends[cause] = event.data
        elif event.kind == "restarted":
            self.restarted.append(cause)
            self.texts[cause] = []
        if event.id:
            self.last_id = event.id
            self.ids.append(event.id)

    async def read_words(self, count: int) -> None:
        """Read so many words, then cut the connection."""
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                count -= event.kind == "word"
                if count == 0:
                    return
        raise AssertionError("the server ended the stream")

    async def read_to_the_end(self, cause: str) -> list[str]:
        """Read until an answer has ended; return its words."""
        async with contextlib.aclosing(self.events()) as events:
            async for _ in events:
                if cause in self.ends:
                    return self.texts[cause]
        raise AssertionError("the server ended the stream")


@contextlib.asynccontextmanager
async def site(
    url: str, *, workers: int = 1, env: dict[str, str] | None = None
) -> AsyncGenerator[tuple[httpx.AsyncClient, list[Running]]]:
    """A web server and workers as processes, and a client for real HTTP."""
    async with processes() as started:
        living = [await started.worker(APPLICATION, url, *FLAGS, env=env) for _ in range(workers)]
        port = free_port()
        web = await started.python(
            *("-m", "uvicorn", "--factory", "examples.chat.web:create_app", "--port", str(port)),
            env={"WHERRY_URL": url, "WHERRY_NAMESPACE": "chat", "CHAT_HEARTBEAT_S": "0.2"},
        )
        await web.until_it_says("Uvicorn running")
        for worker in living:
            await worker.worker_id()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http, living


@pytest.mark.limit_s(60)
async def test_an_answer_is_whole_after_the_connection_was_cut(redis_url: str):
    async with site(redis_url) as (http, _):
        browser = Browser(http, "cut")
        cause = await browser.ask()
        for words in (1, 7, 12):
            await browser.read_words(words)
        assert cause not in browser.ends
        assert await browser.read_to_the_end(cause) == answer_to(1, QUESTION)
        assert browser.ends[cause]["stopped"] is False
        assert browser.restarted == []
        assert len(browser.ids) == len(set(browser.ids))  # nothing was sent again
        # A browser that comes late is given the same.
        late = Browser(http, "cut")
        assert await late.read_to_the_end(cause) == answer_to(1, QUESTION)


@pytest.mark.limit_s(60)
async def test_an_answer_is_whole_after_its_worker_was_killed(redis_url: str):
    async with site(redis_url, workers=2, env={"CHAT_WORD_S": "0.03"}) as (http, living):
        browser = Browser(http, "killed")
        cause = await browser.ask()
        await browser.read_words(10)
        victim = await owner(redis_url, "chat:killed", living)
        await victim.end(signal.SIGKILL)
        assert await browser.read_to_the_end(cause) == answer_to(1, QUESTION)
        assert browser.restarted == [cause]
        assert len(browser.ids) == len(set(browser.ids))
        # The state was not written by the attempt that died: the next question is the second.
        second = await browser.ask("And then?")
        assert await browser.read_to_the_end(second) == answer_to(2, "And then?")


@pytest.mark.limit_s(60)
async def test_an_open_page_is_told_that_its_answer_begins_anew(redis_url: str):
    async with site(redis_url, workers=2, env={"CHAT_WORD_S": "0.03"}) as (http, living):
        browser = Browser(http, "open")
        cause = await browser.ask()
        seen = 0
        async with contextlib.aclosing(browser.events()) as events:
            async for event in events:
                seen += event.kind == "word"
                if event.kind == "word" and seen == 10:
                    victim = await owner(redis_url, "chat:open", living)
                    await victim.end(signal.SIGKILL)
                if event.kind == "end":
                    break
        assert browser.restarted == [cause]
        assert browser.texts[cause] == answer_to(1, QUESTION)
        assert seen > len(browser.texts[cause])


@pytest.mark.limit_s(60)
async def test_stop_ends_a_running_answer_at_once(redis_url: str):
    """Also when the model thinks for longer about one word."""
    async with site(redis_url, env={"CHAT_WORD_S": "0.3"}) as (http, _):
        browser = Browser(http, "stop")
        # The way to the instance is warm: what is measured is the stop, not a cold start.
        cause = await browser.ask()
        loop = asyncio.get_running_loop()
        stopped_at_s = 0.0
        async with contextlib.aclosing(browser.events()) as events:
            async for event in events:
                if event.kind == "word" and event.data["index"] == 1:
                    stopped_at_s = loop.time()
                    await browser.stop()
                if event.kind == "end":
                    break
        assert loop.time() - stopped_at_s < STOP_S
        assert browser.ends[cause]["stopped"] is True
        words = browser.texts[cause]
        assert words == answer_to(1, QUESTION)[: len(words)]
        assert len(words) < 5
        # Nothing of the stop is left: the next answer is whole.
        second = await browser.ask("ok?")
        await browser.read_words(2)
        assert second not in browser.ends


@pytest.mark.limit_s(60)
async def test_stop_of_an_idle_chat_and_a_second_post_do_nothing(redis_url: str):
    async with site(redis_url, env={"CHAT_WORD_S": "0.001"}) as (http, _):
        browser = Browser(http, "idle")
        await browser.stop()
        cause = await browser.ask(key="k1")
        assert await browser.ask(key="k1") == cause
        await browser.read_to_the_end(cause)
        last = await browser.ask("last", key="k2")
        assert await browser.read_to_the_end(last) == answer_to(2, "last")
        assert list(browser.texts) == [cause, last]


@pytest.mark.limit_s(60)
async def test_a_silent_stream_carries_heartbeats(redis_url: str):
    async with site(redis_url) as (http, _):
        browser = Browser(http, "quiet")
        heartbeats = 0
        async with contextlib.aclosing(browser.events()) as events:
            async for event in events:
                heartbeats += event.kind == "heartbeat"
                if event.kind == "heartbeat" and heartbeats == 2:
                    await browser.ask()
                if event.kind == "word":
                    break
        assert heartbeats >= 2


@pytest.mark.limit_s(60)
async def test_wrong_requests_are_refused(redis_url: str):
    async with site(redis_url) as (http, _):
        assert (await http.post("/chats/a b/questions", json={"text": "x"})).status_code == 422
        assert (await http.post("/chats/a/questions", json={"text": ""})).status_code == 422
        bad = await http.get("/chats/a/events", headers={"Last-Event-ID": "last"})
        assert bad.status_code == 422
        assert "EventSource" in (await http.get("/")).text


async def test_replies_that_are_gone_are_told_to_the_browser(redis_url: str):
    """The stream says so, and goes on with what is kept."""
    link = redis.asyncio.Redis.from_url(redis_url)
    async with link, Client(redis_url, namespace="chat") as client:
        await client.send("chat:old", {"type": "chat.stop"})
        key = f"{{chat:{partition_of('chat:old', 64)}}}:out:chat:old"
        word: dict[Any, Any] = {
            "m": b"\x82\xa4type\xa9chat.word\xa4text\xa1x",
            "i": "1-0",
            "n": "0",
            "s": "chat:old",
        }
        for number in range(5, 8):
            await link.xadd(key, word, id=f"{number}-0")
        async with contextlib.aclosing(server_sent_events(client, "chat:old", "2-0")) as events:
            told = [await anext(events) for _ in range(4)]
    assert told[1].startswith("event: trimmed\n")
    assert told[2].startswith("id: 5-0\nevent: word\n")
    assert told[3].startswith("id: 6-0\nevent: word\n")


def test_events_carry_what_a_browser_needs():
    word = Reply(
        id=EntryId("9-0"), scope_id=ScopeId("chat:a"), cause="7-0", index=3,
        message={"type": "chat.word", "text": "a\nb"},
    )  # fmt: skip
    lines = format_event(word).splitlines()
    assert lines[0] == "id: 9-0"
    assert lines[1] == "event: word"
    assert json.loads(lines[2].removeprefix("data: ")) == {
        "cause": "7-0",
        "index": 3,
        "text": "a\nb",
    }
    buried = Reply(
        id=EntryId("9-1"), scope_id=ScopeId("chat:a"), cause="7-0", index=4, message=None,
        error="ValueError: no",
    )  # fmt: skip
    assert "event: failed\n" in format_event(buried)
    assert format_event(None).startswith(":")
    assert "event: restarted\n" in format_event(Restarted(ScopeId("chat:a"), "7-0", "1.2"))


async def owner(url: str, scope_id: str, living: list[Running]) -> Running:
    """Return the worker that holds the lease of a scope's partition."""
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as link:
        key = f"{{chat:{partition_of(scope_id, 64)}}}:lease"
        name = await link.hget(key, "owner")
    for worker in living:
        if await worker.worker_id() == name:
            return worker
    raise AssertionError(f"{name} is none of the workers")
