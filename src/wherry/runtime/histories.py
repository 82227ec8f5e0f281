"""Histories: what a worker gives up when a server's data may have gone back in time.

One server has one history. Each node of a cluster has its own, and only the partitions that it
serves are given up.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from ..broker.cluster import ClusterLink
from ..broker.cluster_past import ClusterPast
from ..broker.connect import Store
from ..broker.history import Past
from ..broker.single import SingleLink
from ..broker.slot_link import SlotLinks
from ..broker.slots import slot_of
from ..broker.wire import Keys
from .duties import Duties
from .holding import Holdings
from .parts import Links


def watch_history(
    store: Store, links: Links, keys: Keys, holdings: Holdings, duties: Duties
) -> None:
    """Let the links on which work depends notice another history; before they are used."""
    if store.topology is None:
        past = Past()
        read, write = cast("SingleLink", links.read), cast("SingleLink", links.write)
        read.past = write.past = past
        past.links = (read, write, links.command)
        past.on_other = duties.history_changed
        return

    def lose(slots: Collection[int]) -> None:
        held = [one.partition for one in holdings.all()]
        duties.history_changed({one for one in held if slot_of(keys.entries(one)) in slots})

    pasts = ClusterPast(store.topology)
    pasts.on_other = lose
    cast("SlotLinks", links.read).past = cast("ClusterLink", links.write).past = pasts
