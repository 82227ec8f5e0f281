"""Deferred: ids of entries of hot scopes, outside the window.

A scope beyond its cap keeps only the ids of what waits, packed in 16 bytes each; payloads
are fetched again, in order, when the scope has room.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from ..model import EntryId, ScopeId, id_key
from .hand import Hand


class Deferred:
    """Waiting ids of one partition, by scope, in order.

    Attributes:
        count: how many.
    """

    __slots__ = ("_hand", "_queues", "count")

    def __init__(self) -> None:
        """Start empty."""
        self._hand = Hand()
        self._queues: dict[ScopeId, array[int]] = {}
        self.count = 0

    def join(self, hand: Hand) -> None:
        """Be counted there from now on, and no more where it was."""
        self._hand.deferred -= self.count
        hand.deferred += self.count
        self._hand = hand

    def _add(self, count: int) -> None:
        self.count += count
        self._hand.deferred += count

    def has(self, scope_id: ScopeId) -> bool:
        """Whether a scope has deferred entries; then newer ones must be deferred too."""
        return scope_id in self._queues

    def count_of(self, scope_id: ScopeId) -> int:
        """How many of a scope wait."""
        return len(self._queues.get(scope_id, ())) // 2

    def first_of(self, scope_id: ScopeId) -> EntryId | None:
        """The oldest id of a scope, which stays; None if none waits."""
        queue = self._queues.get(scope_id)
        return None if queue is None else EntryId(f"{queue[0]}-{queue[1]}")

    def add(self, scope_id: ScopeId, entry_id: EntryId) -> None:
        """Put an id behind the others of its scope."""
        queue = self._queues.get(scope_id)
        if queue is None:
            queue = self._queues[scope_id] = array("Q")
        queue.extend(id_key(entry_id))
        self._add(1)

    def give_back(self, scope_id: ScopeId, entry_ids: Sequence[EntryId]) -> None:
        """Put ids that were taken before the others of their scope again."""
        head = array("Q", [part for one in entry_ids for part in id_key(one)])
        if head:
            self._queues[scope_id] = head + self._queues.get(scope_id, array("Q"))
            self._add(len(entry_ids))

    def take(self, scope_id: ScopeId, most: int) -> Sequence[EntryId]:
        """Take up to ``most`` of the oldest ids of a scope."""
        queue = self._queues.get(scope_id)
        if queue is None:
            return ()
        head = queue[: 2 * most]
        del queue[: 2 * most]
        if not queue:
            del self._queues[scope_id]
        self._add(-len(head) // 2)
        return [EntryId(f"{head[i]}-{head[i + 1]}") for i in range(0, len(head), 2)]

    def clear(self) -> None:
        """Forget all; the partition is read again from its beginning."""
        self._queues.clear()
        self._add(-self.count)
