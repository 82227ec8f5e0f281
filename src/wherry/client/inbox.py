"""Inbox: the answers to a client's requests, all of them read by one reader.

Copies of the replies come to one stream for each partition. It is always read from its start:
what was taken is deleted in the write that carries the next read, so that no id need be compared,
and no reply is lost that was written before its request was known.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..errors import ClientClosed, StoreUnavailable
from ..model import Outgoing
from .outgoings import Sent
from .sending import Sender
from .session import Session
from .shelf import Early, Place, Shelf, Waiting


class Inbox:
    """Sends requests and hands each its replies.

    Attributes:
        name: the inbox's name, unique for this client.
    """

    __slots__ = ("_early", "_places", "_sender", "_session", "_shelves", "name")

    def __init__(self, session: Session, sender: Sender) -> None:
        """Read with a connection of its own, from the first request on."""
        self._session = session
        self._sender = sender
        self._places: dict[str, tuple[Place, Shelf]] = {}
        self._shelves: dict[int, Shelf] = {}
        self._early = Early()
        self.name = secrets.token_hex(10)

    @asynccontextmanager
    async def ask(self, entry: Outgoing) -> AsyncGenerator[tuple[Sent, Waiting]]:
        """Send a message whose inbox is this one; its replies come while the context lasts.

        Raises:
            WherryError: it was not, or perhaps not, appended.
        """
        ticket = self._early.begin()
        # Reading starts before the message is written, unless the partition is not known yet.
        # It may be another one after that: a sender sees when the partition count has changed.
        found = self._place(entry.scope_id)
        try:
            if found is not None:
                found[0].asking += 1
                found[1].watcher.changed()
            try:
                sent = await self._sender.send(entry)
            finally:
                if found is not None:
                    found[0].asking -= 1
                    found[1].watcher.changed()
            found = self._place(entry.scope_id)
            assert found is not None, "who has sent knows the partition"
            place, shelf = found
            waiting = Waiting(self._session.config.in_flight, self._session.config.in_flight_bytes)
            for reply, size_bytes in self._early.take(place.key, sent.entry_id):
                waiting.put(reply, size_bytes)
        finally:
            self._early.end(ticket)
        if not sent.is_new:
            # The copies go to whoever sent it first; the caller reads the scope's own replies.
            yield sent, waiting
            return
        place.waiting[sent.entry_id] = waiting
        shelf.watcher.changed()
        try:
            yield sent, waiting
        finally:
            place.waiting.pop(sent.entry_id, None)
            shelf.watcher.changed()

    async def aclose(self) -> None:
        """Fail all requests, end the reading and delete the inbox."""
        for shelf in self._shelves.values():
            shelf.fail(ClientClosed("this client was closed before the answer was complete"))
        for shelf in self._shelves.values():
            await shelf.watcher.aclose()
        opened = self._session.known
        if opened is not None and self._places:
            try:
                await opened.link.calls([("DEL", key) for key in self._places])
            except StoreUnavailable:
                pass  # what workers wrote expires by itself
        self._places.clear()

    def _place(self, scope_id: str) -> tuple[Place, Shelf] | None:
        opened = self._session.known
        if opened is None:
            return None
        key = self._session.keys.inbox(opened.partition_of(scope_id), self.name)
        found = self._places.get(key)
        if found is None:
            bundle = self._session.bundle_of(key)
            shelf = self._shelves.get(bundle)
            if shelf is None:
                shelf = self._shelves[bundle] = Shelf(self._session, self._early)
            place = shelf.places[key] = Place(key)
            found = self._places[key] = place, shelf
        return found
