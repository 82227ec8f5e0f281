"""Inbox: the queue of a scope, with the face of ``asyncio.Queue`` that asgiref's users know.

What is put into the inbox of a scope that has ended goes to the scope's next lane: nothing
is ever put into a queue that nobody reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .delivery import Delivery

Item = Delivery | Any
"""A delivery, or an untracked message that user code put in by hand."""


class Owner(Protocol):
    """Whose inbox it is; see `wherry.runtime.lane.Lane`."""

    def wake(self) -> None:
        """There is something to take."""
        ...


class Inbox:
    """Waiting items of one scope. Unbounded, like the queue it stands for.

    Attributes:
        items: what waits, oldest first; a queue is made when there is something to put into it.
        maxsize: 0, as an ``asyncio.Queue`` without a bound says it.
        passes: how many instances in a row were cancelled before they took the oldest item.
    """

    __slots__ = ("_forward", "_owner", "items", "passes")

    maxsize = 0

    def __init__(self, owner: Owner) -> None:
        """Wake the owner when there is something to take and was nothing before."""
        self.items: deque[Item] | tuple[()] = ()
        self._owner: Owner | None = owner
        self._forward: Callable[[Item], None] | None = None
        self.passes = 0

    def put_nowait(self, item: Item) -> None:
        """Append an item and wake the instance."""
        if self._forward is not None:
            self._forward(item)
        elif self.items:
            self.items.append(item)
        else:
            self._put_first(item)

    def _put_first(self, item: Item) -> None:
        if isinstance(self.items, tuple):
            self.items = deque()
        self.items.append(item)
        if self._owner is not None:
            self._owner.wake()

    async def put(self, item: Item) -> None:
        """The same; never waits."""
        self.put_nowait(item)

    def put_back(self, item: Item) -> None:
        """Put an item that is to be tried again before all others."""
        self.items = deque((item, *self.items))

    def inherit(self, before: Inbox) -> None:
        """Take what waits in the inbox of the lane before, ahead of what waits here."""
        self.items = deque((*before.drain(), *self.items))
        self.passes = max(self.passes, before.passes)

    @property
    def has_deliveries(self) -> bool:
        """Whether anything waits that user code has not put in by hand."""
        return any(isinstance(item, Delivery) for item in self.items)

    def take(self) -> Item:
        """Take the oldest item.

        Raises:
            IndexError: empty.
        """
        self.passes = 0
        items = self.items
        if not items:
            raise IndexError("nothing waits")
        return items.popleft()

    def peek(self) -> Item | None:
        """The oldest item, which stays; None if empty."""
        return self.items[0] if self.items else None

    def get_nowait(self) -> Item:
        """Take the oldest item.

        Raises:
            asyncio.QueueEmpty: empty.
        """
        if not self.items:
            raise asyncio.QueueEmpty
        return self.take()

    def drain(self) -> list[Item]:
        """Take everything."""
        items, self.items = list(self.items), ()
        return items

    def shrink(self) -> None:
        """Nothing waits, perhaps for long: give the memory of the queue back."""
        if not self.items:
            self.items = ()

    def forward(self, forward: Callable[[Item], None]) -> None:
        """From now on hand to another queue what is put here."""
        self._forward = forward
        self._owner = None

    def qsize(self) -> int:
        """Number of waiting items."""
        return len(self.items)

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self.items

    def full(self) -> bool:
        """Never."""
        return False

    def __len__(self) -> int:
        """Number of waiting items."""
        return len(self.items)
