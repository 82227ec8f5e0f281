"""Parts: what lives during one run of a worker."""

from __future__ import annotations

from dataclasses import dataclass

from ..broker.calls import Retention
from ..broker.connect import PooledLink
from ..broker.leases import Leases
from ..broker.link import Link
from ..config import Config
from .committer import Committer
from .duties import Duties
from .handoff import HandOff
from .loader import Loader
from .membership import Membership
from .outbox import Outbox
from .probing import Probing
from .reader import Reader
from .renewal import Renewal


@dataclass(slots=True, eq=False)
class Links:
    """Connections of one run; each kind of traffic has its own."""

    read: Link
    write: Link
    command: PooledLink

    async def aclose(self) -> None:
        """Close all of them."""
        await self.read.aclose()
        await self.write.aclose()
        await self.command.aclose()


@dataclass(slots=True, eq=False)
class Parts:
    """The parts that `wherry.worker.Worker` nests, starts and stops."""

    committer: Committer
    loader: Loader
    outbox: Outbox
    reader: Reader
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
