"""Dead letters for tests of the commands: planted as a worker writes them."""

from __future__ import annotations

from typing import Any, Self

import redis

from wherry.broker.attempts import pack_row
from wherry.broker.wire import Keys
from wherry.model import AttemptsRow, Partition, partition_of

KEYS = Keys("wherry")
PARTITIONS = 4


class Planted:
    """A namespace without workers, made by hand."""

    def __init__(self, url: str, partitions: int = PARTITIONS) -> None:
        self.link: Any = redis.Redis.from_url(url, protocol=2)
        self._partitions = partitions
        meta = {"protocol_min": 1, "protocol_max": 1, "partitions": partitions, "generation": "g"}
        self.link.hset(KEYS.meta, mapping=meta)

    def bury(
        self,
        scope: str,
        letter_id: str = "*",
        error: str = "ValueError: no",
        message: str = '{"type": "count", "n": 1}',
        **fields: bytes,
    ) -> str:
        """Append a dead letter; returns how `wherry dlq ls` names it."""
        partition = self.place(scope)
        own = {"id": "1-0", "error": error, "traceback": "Traceback: here\n", "attempts": 5}
        entry = {"when": 1, "s": scope, "j": message, **fields}
        added = self.link.xadd(KEYS.dead(partition), own | entry, id=letter_id)
        return f"{partition}/{added.decode()}"

    def hold(self, scope: str, entry_id: str) -> str:
        """Append an entry that holds its scope; returns how `wherry dlq ls` names it."""
        partition = self.place(scope)
        entry = {"s": scope, "j": '{"type": "count"}'}
        self.link.xadd(KEYS.entries(partition), entry, id=entry_id)
        row = pack_row(AttemptsRow(attempts=5, error="ValueError: no", is_held=True))
        self.link.hset(KEYS.attempts(partition), entry_id, row)
        return f"{partition}/held/{entry_id}"

    def place(self, scope: str) -> Partition:
        """The partition of a scope."""
        return partition_of(scope, self._partitions)

    def dead(self) -> int:
        """All dead letters there are."""
        return sum(self.link.xlen(KEYS.dead(Partition(one))) for one in range(self._partitions))

    def waiting(self, scope: str) -> list[dict[bytes, bytes]]:
        """The entries of a scope's partition."""
        partition = self.place(scope)
        return [fields for _, fields in self.link.xrange(KEYS.entries(partition))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.link.close()
