"""Followers: many readers of reply streams share a few reads.

They share a `Listener` where the server gives notice of what has changed, and blocking reads where
it does not. The shared read only carries what is beyond doubt. A follower that was too slow for
it, or whose stream may have been trimmed under it, is told that it lags: then it reads on by itself
from where it is, with all the care of `history`, and comes back. Redis is the buffer.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from ..errors import ClientClosed
from ..model import id_key
from .follower import Follower
from .session import Session
from .tails import Group, Tail


class Followers:
    """All followers of one client."""

    __slots__ = ("_closing", "_groups", "_is_deaf", "_made", "_session", "_tails")

    def __init__(self, session: Session) -> None:
        """Start with none; each group of streams has a connection of its own."""
        self._session = session
        self._groups: list[Group] = []
        self._tails: dict[str, Tail] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._made = 0
        self._is_deaf = session.is_cluster

    def join(self, key: str) -> Follower:
        """Begin to follow a stream; call `go_live` when all that it held was read."""
        tail = self._tails.get(key)
        if tail is None:
            tail = Tail(key, self._find_group(self._session.bundle_of(key)))
            self._tails[key] = tail.group.tails[key] = tail
        follower = Follower(key, since=tail.cursor)
        tail.followers[follower] = None
        return follower

    def restart(self, follower: Follower) -> None:
        """A lagging follower is about to read by itself; from now on its queue fills again."""
        tail = self._tails.get(follower.key)
        if tail is not None:
            follower.is_lagging = False
            follower.since = tail.cursor

    def go_live(self, follower: Follower, after: str) -> bool:
        """The follower has read the stream up to ``after``; False if it must read on by itself."""
        tail = self._tails.get(follower.key)
        if tail is None or follower.is_lagging:
            return False
        if tail.cursor is None:
            tail.group.begin(tail, after)
            for other in tail.followers:
                other.since = after
            tail.group.reader.changed()
        return follower.since is not None and id_key(after) >= id_key(follower.since)

    def leave(self, follower: Follower) -> None:
        """End following; a group without streams closes its connection, but for the last one."""
        tail = self._tails.get(follower.key)
        if tail is None or follower not in tail.followers:
            return
        del tail.followers[follower]
        if tail.followers:
            return
        group = tail.group
        del self._tails[follower.key]
        group.forget(follower.key)
        if group.tails or len(self._groups) == 1:
            group.reader.changed()
        else:
            self._groups.remove(group)
            closing = self._session.tasks.start(group.reader.aclose(), "replies:close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """End the reading and fail all followers."""
        groups, self._groups = self._groups, []
        for tail in self._tails.values():
            for follower in tail.followers:
                follower.error = ClientClosed("this client was closed while it read replies")
                follower.wake.set()
        self._tails.clear()
        for group in groups:
            await group.reader.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _find_group(self, bundle: int) -> Group:
        for group in self._groups:
            if group.bundle == bundle and len(group.tails) < group.most:
                return group
        self._made += 1
        deaf = None if self._is_deaf else self._spread
        group = Group(self._session, f"replies-{self._made}", bundle, deaf)
        self._groups.append(group)
        return group

    def _spread(self, group: Group) -> None:
        """This server gives no notice: the group has more streams than a blocking read may."""
        self._is_deaf = True
        for tail in list(islice(group.tails.values(), group.most, None)):
            other = self._find_group(group.bundle)
            other.adopt(tail)
            other.reader.changed()
