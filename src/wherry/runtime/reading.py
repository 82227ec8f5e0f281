"""Reading: one read for all partitions of one server, or one for each partition of a cluster."""

from __future__ import annotations

from collections.abc import Callable

from ..broker.link import Link
from ..broker.slot_link import SlotLinks
from ..config import Config
from ..engine.gathering import Usage
from ..hooks import Hooks
from .cluster_reader import ClusterReader
from .holding import Holdings
from .parts import AnyReader, Links
from .reader import Gate, Reader
from .reads import Ears, Reads, SeparateReads, SharedReads
from .router import Router


def make_ears(links: Links) -> Ears:
    """What counts the reads over these links."""
    return SeparateReads() if isinstance(links.read, SlotLinks) else SharedReads(Reads())


def make_reader(
    links: Links,
    config: Config,
    holdings: Holdings,
    router: Router,
    gate: Gate,
    hooks: Hooks,
    usage: Callable[[], Usage],
) -> AnyReader:
    """What reads over these links; the ears of the holdings are those that `make_ears` made."""
    if isinstance(links.read, SlotLinks):
        return ClusterReader(links.read, links.command, config, holdings, router, gate, hooks)
    both: tuple[Link, Link] = (links.read, links.command)
    return Reader(both, config, holdings, router, gate, hooks, usage)
