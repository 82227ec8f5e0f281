"""Space: a namespace with its partitions, as workers under test use it."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.broker.wire import Keys
from wherry.config import DEFAULT_PARTITIONS, Config
from wherry.model import Partition, partition_of


@dataclass(frozen=True, slots=True)
class Space:
    """Where workers read and answer.

    Attributes:
        namespace: its name.
        partitions: how many.
    """

    namespace: str = Config().namespace
    partitions: int = DEFAULT_PARTITIONS

    def input_stream(self, scope: str) -> str:
        """Where a worker reads a scope's messages."""
        return Keys(self.namespace).entries(partition_of(scope, self.partitions))

    def reply_stream(self, scope: str) -> str:
        """Where a worker writes a scope's replies."""
        return Keys(self.namespace).replies(partition_of(scope, self.partitions), scope)

    def leases(self) -> list[str]:
        """The lease of each partition."""
        keys = Keys(self.namespace)
        return [keys.lease(Partition(number)) for number in range(self.partitions)]

    def flags(self) -> list[str]:
        """What tells ``wherry run`` of it."""
        return ["--namespace", self.namespace, "--partitions", str(self.partitions)]


DEFAULT = Space()
