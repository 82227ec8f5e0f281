"""Asking: one request, from its sending to the end of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ..errors import MessageFailed, RepliesTrimmed, RequestTimeout
from ..model import ORIGIN, Outgoing, Reply, Restarted
from .answers import Answer, Event
from .followers import Followers
from .inbox import Inbox, Waiting
from .replies import Replies, Wanted
from .session import Session


class Asking:
    """One request.

    Attributes:
        entry_id: of the input entry; "" before it was sent.
    """

    __slots__ = ("_followers", "_inbox", "_session", "entry_id")

    def __init__(self, session: Session, inbox: Inbox, followers: Followers) -> None:
        """Ask by the client's inbox; what was asked before is read as its followers do."""
        self._session = session
        self._inbox = inbox
        self._followers = followers
        self.entry_id = ""

    async def events(self, entry: Outgoing) -> AsyncGenerator[Event]:
        """Send a message and yield its replies, and `Restarted` where the answer begins anew.

        Raises:
            MessageFailed: it expired or was buried.
            WherryError: it was not sent, or the answer cannot be read.
        """
        async with self._inbox.ask(entry) as (sent, waiting):
            self.entry_id = sent.entry_id
            if sent.is_new:
                source = self._from_inbox(entry, waiting)
            else:
                source = self._from_replies(entry)
            async with aclosing(source):
                async for event in source:
                    if isinstance(event, Reply) and event.error is not None:
                        raise MessageFailed(self.entry_id, event.error)
                    yield event

    async def timed_events(self, entry: Outgoing, timeout_s: float) -> AsyncGenerator[Event]:
        """The same, with a limit on each wait.

        Raises:
            RequestTimeout: nothing came for ``timeout_s``.
        """
        async with aclosing(self.events(entry)) as events:
            while True:
                limit = asyncio.timeout(timeout_s)
                try:
                    async with limit:
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    if limit.expired():
                        raise RequestTimeout(self.entry_id, timeout_s) from error
                    raise
                yield event

    async def _from_inbox(self, entry: Outgoing, waiting: Waiting) -> AsyncGenerator[Event]:
        answer = Answer(self.entry_id)
        while not answer.is_complete:
            events = answer.take(await waiting.next())
            if answer.is_broken:
                raise RepliesTrimmed(entry.scope_id, ORIGIN, "")
            for event in events:
                yield event

    async def _from_replies(self, entry: Outgoing) -> AsyncGenerator[Event]:
        wanted = Wanted(scope_id=entry.scope_id, follow=True, cause=self.entry_id)
        async with aclosing(Replies(self._session, self._followers, wanted).events()) as events:
            async for event in events:
                if isinstance(event, Reply | Restarted):
                    yield event
