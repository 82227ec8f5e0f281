"""Parts: what lives during one run of a worker."""

from __future__ import annotations

from dataclasses import dataclass

from ..broker.calls import Retention
from ..broker.connect import CommandLink, Store
from ..broker.leases import Leases
from ..broker.link import Link
from ..broker.slot_link import SlotLinks
from ..config import Config
from .cluster_reader import ClusterReader
from .committer import Committer
from .duties import Duties
from .handoff import HandOff
from .loader import Loader
from .membership import Membership
from .outbox import Outbox
from .probing import Probing
from .reader import Reader
from .renewal import Renewal

AnyReader = Reader | ClusterReader
"""One read for all partitions, or one for each."""


@dataclass(slots=True, eq=False)
class Links:
    """Connections of one run; each kind of traffic has its own."""

    read: Link | SlotLinks
    write: Link
    command: CommandLink

    async def aclose(self) -> None:
        """Close all of them."""
        await self.read.aclose()
        await self.write.aclose()
        await self.command.aclose()


def open_links(store: Store, config: Config) -> Links:
    """Links for a worker; they connect when they are used."""
    timeout_s = config.socket_timeout_s
    write = store.single_link(answer_timeout_s=timeout_s)
    if store.topology is None:
        read = store.single_link(answer_timeout_s=timeout_s)
        return Links(read, write, store.link(answer_timeout_s=timeout_s))
    # All nodes are asked for leases at a time, and one that is silent must not cost those of the
    # others: a beat is late then, but not by a lease.
    beat_s = min(timeout_s, config.beat_s)
    read = store.slot_links(answer_timeout_s=timeout_s)
    return Links(read, write, store.link(answer_timeout_s=beat_s))


@dataclass(slots=True, eq=False)
class Parts:
    """The parts that `wherry.worker.Worker` nests, starts and stops."""

    committer: Committer
    loader: Loader
    outbox: Outbox
    reader: AnyReader
    membership: Membership
    renewal: Renewal | None
    handoff: HandOff
    leases: Leases
    probing: Probing
    duties: Duties


def retention_of(config: Config) -> Retention:
    """How long a worker with these settings keeps what it writes."""
    return Retention(
        reply_length=config.reply_length,
        reply_ttl_ms=int(config.reply_ttl_s * 1000),
        state_ttl_ms=int(config.state_ttl_s * 1000),
    )
