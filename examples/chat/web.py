"""The browser's side: a page, an endpoint that posts, one that serves answers as they come.

    uvicorn --factory examples.chat.web:create_app

A browser that was cut off comes back with ``Last-Event-ID``, the id of the last reply it has
seen, and is given all that followed: the ids of the events are the ids of the reply stream.

Events: ``word`` and ``end`` are replies, ``done`` says that no more follow; ``restarted`` means
that an answer begins anew because its worker died; ``failed`` that there will be no answer;
``trimmed`` that replies in between are gone, and what follows is everything that is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header
from fastapi import Path as PathPart
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from wherry import Client, RepliesTrimmed, Reply, Restarted

HEARTBEAT_S = float(os.environ.get("CHAT_HEARTBEAT_S") or 15.0)
"""Proxies close a connection that is silent for longer, often after 30 or 60 seconds."""
RECONNECT_MS = 500
PAGE = Path(__file__).with_name("page.html")

ChatId = Annotated[str, PathPart(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ReplyId = Annotated[str | None, Header(pattern=r"^\d{1,20}-\d{1,20}$")]


class Question(BaseModel):
    """What is posted."""

    text: str = Field(min_length=1, max_length=2_000)


def create_app() -> FastAPI:
    """The web application; store and namespace come from ``WHERRY_URL``, ``WHERRY_NAMESPACE``."""
    client = Client(
        os.environ.get("WHERRY_URL") or "embedded://",
        namespace=os.environ.get("WHERRY_NAMESPACE") or "wherry",
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with client:
            yield

    app = FastAPI(title="Chat", lifespan=lifespan)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.post("/chats/{chat}/questions", status_code=202)
    async def ask(
        chat: ChatId,
        question: Question,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> dict[str, str]:
        """Ask; the id in the answer is the ``cause`` of the words that follow."""
        cause = await client.send(
            scope_of(chat),
            {"type": "chat.ask", "text": question.text},
            stream=True,
            message_id=idempotency_key,
        )
        return {"id": cause}

    @app.post("/chats/{chat}/stop", status_code=202)
    async def stop(chat: ChatId) -> dict[str, str]:
        """End the answer that is being given."""
        return {"id": await client.send(scope_of(chat), {"type": "chat.stop"})}

    @app.get("/chats/{chat}/events")
    async def events(chat: ChatId, last_event_id: ReplyId = None) -> StreamingResponse:
        """The answers of a chat, as they come; from the oldest that is kept, or behind an id."""
        return StreamingResponse(
            server_sent_events(client, scope_of(chat), last_event_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    return app


def scope_of(chat: str) -> str:
    """The scope id of a chat. A real site takes it from the session, not from the address."""
    return f"chat:{chat}"


async def server_sent_events(
    client: Client, scope_id: str, after: str | None
) -> AsyncGenerator[str]:
    """Follow the replies of a scope for as long as the browser listens."""
    yield f"retry: {RECONNECT_MS}\n\n"
    while True:
        following = client.replies(scope_id, after=after, follow=True, heartbeat_s=HEARTBEAT_S)
        try:
            async with aclosing(following) as replies:
                async for reply in replies:
                    yield format_event(reply)
        except RepliesTrimmed as error:
            yield _event("trimmed", {"oldest": error.first})
            after = None


def format_event(reply: Reply | Restarted | None) -> str:
    """One event, or a comment that keeps the connection open."""
    if reply is None:
        return ": heartbeat\n\n"
    if isinstance(reply, Restarted):
        return _event("restarted", {"cause": reply.cause})
    data = {"cause": reply.cause, "index": reply.index}
    if reply.error is not None:
        return _event("failed", data | {"error": reply.error}, reply.id)
    message = reply.message or {}
    data |= {name: value for name, value in message.items() if name != "type"}
    kind = str(message.get("type", "chat.done"))
    return _event(kind.removeprefix("chat."), data, reply.id)


def _event(kind: str, data: dict[str, Any], event_id: str = "") -> str:
    number = f"id: {event_id}\n" if event_id else ""
    return f"{number}event: {kind}\ndata: {json.dumps(data)}\n\n"
