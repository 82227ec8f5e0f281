"""SlotLink: one connection that stays with one slot of a cluster, wherever that goes.

For blocking reads: two slots never fit into one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import StoreUnavailable, WherryError
from .cluster import HOPS, TRIES, TRY_AGAIN_S, ClusterLink, in_loop
from .cluster_past import ClusterPast
from .history import OtherHistory
from .link import Argument, Command, Link
from .redirects import Redirected, is_try_again
from .single import SingleLink
from .slots import Place, slot_of
from .topology import Topology


class SlotLink:
    """Implements `wherry.broker.link.Link` for commands about keys of one slot, one call at a time.

    Attributes:
        place: the node that was asked last, None before the first.
        past: what is noticed of the nodes' histories; None: it does not matter here.
    """

    __slots__ = (
        "_has_left", "_is_cut", "_link", "_make", "_slot", "_topology", "_unlisten",
        "connects", "past", "place",
    )  # fmt: skip

    def __init__(self, topology: Topology, slot: int, make: Callable[[Place], SingleLink]) -> None:
        """Connect, when it is needed, to the node that then serves the slot."""
        self._topology = topology
        self._slot = slot
        self._make = make
        self._link: SingleLink | None = None
        self._is_cut = False
        self._has_left = False
        self._unlisten: Callable[[], None] | None = None
        self.connects = 0
        self.place: Place | None = None
        self.past: ClusterPast | None = None

    @property
    def client_id(self) -> int | None:
        """Number of the connection as its node counts."""
        return None if self._link is None else self._link.client_id

    @property
    def joins_slots(self) -> bool:
        """A script may touch the keys of one slot alone."""
        return False

    async def call(self, *command: Argument) -> Any:
        """See `wherry.broker.link.Link`."""
        [answer] = await self.calls((command,))
        if isinstance(answer, WherryError):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `wherry.broker.link.Link`; all are sent again when the slot has moved."""
        asked: Place | None = None
        moved = StoreUnavailable(f"slot {self._slot} of the cluster does not stay anywhere")
        answers: list[Any] = [moved] * len(commands)
        tries = 0
        for _ in range(HOPS):
            place = asked or await self._place()
            found = await self._ask(place, commands, is_asking=asked is not None)
            asked = None
            if found is None:
                continue
            answers = found
            refusal = next(filter(_is_refusal, answers), None)
            if refusal is None:
                break
            if not isinstance(refusal, Redirected):
                tries += 1
                if tries == TRIES:
                    break
                await asyncio.sleep(TRY_AGAIN_S * 2 ** (tries - 1))
            elif refusal.is_ask:
                asked = refusal.place(place)
            else:
                self._topology.note_moved(refusal.slot, place, refusal.place(place))
        return answers

    async def _ask(
        self, place: Place, commands: Sequence[Command], *, is_asking: bool
    ) -> list[Any] | None:
        """The answers of a node; None if it was left meanwhile."""
        link = self._at(place)
        self._is_cut = self._has_left = False
        try:
            before = link.connects
            await link.connected()
            self.connects += link.connects - before
            if self.past is not None:
                self._check(self.past, place, link.history or "", is_asking=is_asking)
            if not is_asking:
                answers = await link.calls(commands)
            else:
                each = [part for command in commands for part in (("ASKING",), command)]
                answers = (await link.calls(each))[1::2]
        except OtherHistory:
            raise
        except StoreUnavailable:
            if self._has_left:
                return None
            if self._is_cut:
                raise
            self._topology.failed(place)
            await self._topology.refresh()
            raise
        self._topology.answered(place)
        if any(isinstance(one, StoreUnavailable) and "CLUSTERDOWN" in str(one) for one in answers):
            await self._topology.refresh()
        return answers

    def _check(self, past: ClusterPast, place: Place, history: str, *, is_asking: bool) -> None:
        if is_asking:
            is_other = not past.may_ask(self._slot, history)
        else:
            is_other = bool(past.check((self._slot,), place, history))
        if is_other:
            raise OtherHistory(f"Redis at {place[0]}:{place[1]} was restarted or replaced")

    async def _place(self) -> Place:
        place = self._topology.place_of(self._slot)
        if place is None:
            await self._topology.refresh(at_least=True)
            place = self._topology.place_of(self._slot)
        if place is None:
            raise StoreUnavailable(f"no node of the cluster serves slot {self._slot}")
        return place

    def _at(self, place: Place) -> SingleLink:
        if self._link is None or self.place != place:
            if self._link is not None:
                self._link.cut()
            self._link = self._make(place)
            self.place = place
            if self.past is not None:
                self._link.past = self.past.of(place)
        if self._unlisten is None:
            loop = asyncio.get_running_loop()
            self._unlisten = self._topology.listen(in_loop(loop, self._leave_replaced))
        return self._link

    def _leave_replaced(self) -> None:
        """Cut a read at a node that does not serve the slot any more: it may be silent for long."""
        if self._link is not None and self._topology.place_of(self._slot) not in (None, self.place):
            self._has_left = True
            self._link.cut()

    async def unblock(self, link: Link) -> bool:
        """Let a blocking call return, by a command over another link to the same cluster.

        Returns:
            Whether it was blocked.

        Raises:
            WherryError: as `Link.call` does.
        """
        client_id = self.client_id
        if self.place is None or client_id is None or not isinstance(link, ClusterLink):
            return False
        return await link.call_at(self.place, "CLIENT", "UNBLOCK", client_id) == 1

    def cut(self) -> None:
        """Let a call under way fail; the next one makes another connection."""
        if self._link is not None:
            self._is_cut = True
            self._link.cut()

    async def reconnect(self) -> None:
        """See `wherry.broker.link.Link`."""
        if self._link is not None:
            await self._link.reconnect()

    async def aclose(self) -> None:
        """See `wherry.broker.link.Link`."""
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()


class SlotLinks:
    """Makes slot links; each stays open until it is closed, or all are.

    Attributes:
        past: given to those that are made from now on.
    """

    __slots__ = ("_closed", "_links", "_make", "_topology", "past")

    def __init__(self, topology: Topology, make: Callable[[Place], SingleLink]) -> None:
        """Make none yet."""
        self._topology = topology
        self._make = make
        self._links: dict[SlotLink, None] = {}
        self._closed = 0
        self.past: ClusterPast | None = None

    @property
    def connects(self) -> int:
        """How often a connection was made beyond the first of each link, and one."""
        return 1 + self._closed + sum(max(0, one.connects - 1) for one in self._links)

    def of(self, key: str) -> SlotLink:
        """A link for the slot of a key."""
        link = SlotLink(self._topology, slot_of(key), self._make)
        link.past = self.past
        self._links[link] = None
        return link

    async def close(self, link: SlotLink) -> None:
        """Close one of them."""
        self._links.pop(link, None)
        self._closed += max(0, link.connects - 1)
        await link.aclose()

    async def aclose(self) -> None:
        """Close all of them."""
        for link in list(self._links):
            await self.close(link)


def _is_refusal(answer: object) -> bool:
    return isinstance(answer, Redirected) or is_try_again(answer)
