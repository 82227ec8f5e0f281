"""Instances: what ``application_instances`` shows, with the face of asgiref's dictionary.

It shows the lanes of the pool, and beside them the records of *foreign* instances: those that user
code started by itself, in a ``get_or_create_application_instance`` of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any

from .failures import Failures
from .lane import Lane


class Instances(MutableMapping[Any, Any]):
    """Scope id -> lane or foreign record.

    What goes round in it sees those that were there at the beginning, so it may delete on its way.

    Attributes:
        foreign: records that user code has put here.
        told: the lane whose error ``application_exception`` is being told. It has ended, but
            user code may look it up and delete it, as it does with asgiref's.
    """

    __slots__ = ("_end", "_failures", "_lanes", "foreign", "told")

    def __init__(
        self, lanes: dict[Any, Lane], end: Callable[[Lane], None], failures: Failures
    ) -> None:
        """Show lanes; ``end`` ends one that is removed from here, when it is not busy."""
        self._lanes = lanes
        self._end = end
        self._failures = failures
        self.foreign: dict[Any, Any] = {}
        self.told: Lane | None = None

    def _all(self) -> dict[Any, Any]:
        return {**self.foreign, **self._lanes} if self.foreign else dict(self._lanes)

    def __getitem__(self, scope_id: Any) -> Any:
        """What is kept of a scope's instance."""
        lane = self._lanes.get(scope_id)
        if lane is not None:
            return lane
        if self.told is not None and self.told.scope_id == scope_id:
            return self.told
        return self.foreign[scope_id]

    def __setitem__(self, scope_id: Any, details: Any) -> None:
        """Put the record of an instance here that user code has started.

        Raises:
            ValueError: the record of an instance of this server; an ended one cannot go on.
        """
        if isinstance(details, Lane):
            if self._lanes.get(scope_id) is details:
                return
            raise ValueError(f"{details!r} cannot be put back; get a new one for the scope")
        lane = self._lanes.get(scope_id)
        if lane is not None:
            self._end(lane)
        self.foreign[scope_id] = details
        future: asyncio.Future[Any] = details["future"]
        future.add_done_callback(lambda _: self._done(scope_id, details, future))

    def __delitem__(self, scope_id: Any) -> None:
        """Remove an instance: it ends when it has handled its message."""
        lane = self._lanes.get(scope_id)
        if lane is not None:
            self._end(lane)
        elif self.told is not None and self.told.scope_id == scope_id:
            self.told = None
        else:
            del self.foreign[scope_id]

    def __iter__(self) -> Iterator[Any]:
        """The scope ids."""
        return iter(self._all())

    def __len__(self) -> int:
        """Number of instances."""
        return len(self._lanes) + len(self.foreign)

    def items(self) -> ItemsView[Any, Any]:
        """Scope ids and what is kept of them, as of now."""
        return self._all().items()

    def values(self) -> ValuesView[Any]:
        """What is kept of each instance, as of now."""
        return self._all().values()

    def __repr__(self) -> str:
        """The scope ids and their lanes or records."""
        return f"<Instances {self._all()!r}>"

    def _done(self, scope_id: Any, details: Any, future: asyncio.Future[Any]) -> None:
        if self.foreign.get(scope_id) is details:
            del self.foreign[scope_id]
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._failures.add(error, details)

    async def end_foreign(self, timeout_s: float | None) -> None:
        """Cancel all foreign instances and wait for them, at most so many seconds."""
        futures = [details["future"] for details in self.foreign.values()]
        self.foreign.clear()
        for future in futures:
            future.cancel()
        if futures:
            await asyncio.wait(futures, timeout=timeout_s)
