"""Deferred: ids of entries of hot scopes, outside the window.

A scope beyond its cap keeps only the ids of what waits, packed in 16 bytes each; payloads
are fetched again, in order, when the scope has room.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from ..model import EntryId, ScopeId

_LARGEST = 2**64 - 1


class Deferred:
    """Waiting ids of one partition, by scope, in order."""

    __slots__ = ("_queues", "count")

    def __init__(self) -> None:
        """Start empty."""
        self._queues: dict[ScopeId, array[int]] = {}
        self.count = 0

    def has(self, scope_id: ScopeId) -> bool:
        """Whether a scope has deferred entries; then newer ones must be deferred too."""
        return scope_id in self._queues

    def add(self, scope_id: ScopeId, entry_id: EntryId) -> None:
        """Put an id behind the others of its scope."""
        milliseconds, _, sequence = entry_id.partition("-")
        queue = self._queues.get(scope_id)
        if queue is None:
            queue = self._queues[scope_id] = array("Q")
        queue.append(min(int(milliseconds), _LARGEST))
        queue.append(min(int(sequence), _LARGEST))
        self.count += 1

    def take(self, scope_id: ScopeId, most: int) -> Sequence[EntryId]:
        """Take up to ``most`` of the oldest ids of a scope."""
        queue = self._queues.get(scope_id)
        if queue is None:
            return ()
        head = queue[: 2 * most]
        del queue[: 2 * most]
        if not queue:
            del self._queues[scope_id]
        self.count -= len(head) // 2
        return [EntryId(f"{head[i]}-{head[i + 1]}") for i in range(0, len(head), 2)]

    def clear(self) -> None:
        """Forget all; the partition is read again from its beginning."""
        self._queues.clear()
        self.count = 0
