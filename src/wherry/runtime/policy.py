"""Policy: what differs between the lanes of a bare server and those of a worker."""

from __future__ import annotations

from typing import Any, Protocol

from .delivery import Delivery
from .inbox import Item
from .instance import Instance
from .lane import Lane, Outlet, Rules


class Gate(Protocol):
    """Says when lanes may start, while some must run alone; see `wherry.runtime.probing`."""

    def admits(self, lane: Lane, item: Item) -> bool:
        """Whether a lane may start on an item now; if not, it is woken later."""
        ...

    async def enter(self, lane: Lane) -> None:
        """Return when a lane may call the application."""
        ...

    def look(self) -> None:
        """Something has come to rest."""
        ...

    def ended(self, lane: Lane) -> None:
        """A lane's task is done."""
        ...


class Policy(Rules, Protocol):
    """What differs between a bare server and a worker; see `Untracked`."""

    def created(self, lane: Lane) -> None:
        """A lane was made; its task starts in the next turn of the loop."""
        ...

    def fits(self, lane: Lane, item: Item) -> bool:
        """Whether an item is for the lane's instance, or needs one with another scope."""
        ...

    def rest(self, lane: Lane) -> bool:
        """A lane has nothing to do; whether it may be ended to make room."""
        ...

    async def prepare(self, lane: Lane) -> Instance:
        """A new instance with a fresh scope."""
        ...

    def failed(self, lane: Lane, delivery: Delivery, error: BaseException) -> bool:
        """An attempt failed; whether it is to be tried again."""
        ...

    def interrupted(self, lane: Lane, delivery: Delivery) -> None:
        """An attempt was cut off, which is nobody's failure."""
        ...

    def ended(self, lane: Lane) -> None:
        """A lane's task is done."""
        ...

    def evicted(self) -> None:
        """An idle lane was ended to make room."""
        ...

    def abandoned(self, lane: Lane) -> None:
        """A lane was cancelled and its task is not done in time; it may never be."""
        ...


class Untracked:
    """The policy of a bare server: messages are in memory and tried once."""

    outlet: Outlet | None = None

    def created(self, lane: Lane) -> None:
        """Nothing to do."""

    def begin(self, lane: Lane, item: Item) -> Any:
        """At once."""
        return item.entry.message if isinstance(item, Delivery) else item

    def idled(self, lane: Lane) -> None:
        """Nothing to do."""

    def fits(self, lane: Lane, item: Item) -> bool:
        """Always."""
        return True

    def rest(self, lane: Lane) -> bool:
        """Always."""
        return True

    async def prepare(self, lane: Lane) -> Instance:
        """With the scope as it was given."""
        return Instance(lane, lane.scope)

    def finish(self, lane: Lane, delivery: Delivery) -> None:
        """Nothing to do."""

    def failed(self, lane: Lane, delivery: Delivery, error: BaseException) -> bool:
        """Once is enough."""
        return False

    def interrupted(self, lane: Lane, delivery: Delivery) -> None:
        """Nothing to do."""

    def ended(self, lane: Lane) -> None:
        """Nothing to do."""

    def evicted(self) -> None:
        """Nothing to do."""

    def abandoned(self, lane: Lane) -> None:
        """Nothing to do."""
