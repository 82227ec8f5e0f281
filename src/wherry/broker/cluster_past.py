"""ClusterPast: the histories of a cluster's nodes, and in which of them each slot was seen last.

A failover, or a restart that lost data, concerns the slots of one node only. A slot that was moved
to another node has lost nothing: whoever had it said so himself, and the new one is no replica of
his that took over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .history import Connected, is_heir
from .slots import Place
from .topology import Topology


class ClusterPast:
    """The histories that a worker knows, shared by its links.

    Attributes:
        on_other: called with the slots whose data may have gone back in time, before anything is
            sent to the node that serves them now.
    """

    __slots__ = ("_by_place", "_by_slot", "_topology", "on_other")

    def __init__(self, topology: Topology) -> None:
        """Know none: the first that is met for a slot is taken for the right one."""
        self.on_other: Callable[[Collection[int]], None]
        self._topology = topology
        self._by_place: dict[Place, str] = {}
        self._by_slot: dict[int, str] = {}

    def of(self, place: Place) -> NodePast:
        """What the links to one node tell."""
        return NodePast(self, place)

    def met(self, place: Place, history: str) -> None:
        """A link has connected to a node."""
        before = self._by_place.get(place)
        self._by_place[place] = history
        if before in (None, history):
            return
        changed = [slot for slot, known in self._by_slot.items() if known == before]
        for slot in changed:
            # Wherever it is served now: it is taken for right when it is met again.
            del self._by_slot[slot]
        if changed:
            self.on_other(changed)

    def check(self, slots: Iterable[int], place: Place, history: str) -> Collection[int]:
        """Look before something is sent to a node.

        Returns:
            Slots whose data may have gone back in time since something was sent to them; they are
            told of, and what was meant for them must not be sent.
        """
        changed: list[int] = []
        for slot in slots:
            known = self._by_slot.get(slot)
            if known != history and not self._was_left(slot, place):
                self._by_slot[slot] = history
                if known is not None and not self._was_moved(slot, place, history, known):
                    changed.append(slot)
        if changed:
            self.on_other(changed)
        return changed

    def may_ask(self, slot: int, history: str) -> bool:
        """Whether a node that is named for a moved key (ASK) has lost nothing of the slot."""
        known = self._by_slot.get(slot)
        return known in (None, history) or not is_heir(history, known)

    def _was_left(self, slot: int, place: Place) -> bool:
        """Whether a node has said that it has the slot no more: then it says so again.

        Such a call was addressed before, by another link than the one that was told.
        """
        return slot in self._topology.handed_over and place == self._topology.handed_over[slot][0]

    def _was_moved(self, slot: int, place: Place, history: str, known: str) -> bool:
        told_by, told = self._topology.handed_over.get(slot, (None, None))
        if told_by is None or told != place or self._by_place.get(told_by) != known:
            return False
        return not is_heir(history, known)


class NodePast:
    """Implements `wherry.broker.history.Meeting` for the links to one node."""

    __slots__ = ("_past", "_place")

    def __init__(self, past: ClusterPast, place: Place) -> None:
        """Tell a cluster's past."""
        self._past = past
        self._place = place

    async def meet(self, history: str, link: Connected) -> None:
        """See `wherry.broker.history.Meeting`."""
        self._past.met(self._place, history)
