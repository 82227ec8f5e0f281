"""The producer: sends the month, one message for each flight.

    python -m examples.flights.produce

Each message has an id of its own, so a producer that was cut off may simply run again: what
was accepted before is not accepted twice.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

from wherry import Client, Envelope

from .month import Flight, read_month
from .settings import client_settings

BATCH = 500


async def send_flights(
    client: Client, flights: Sequence[Flight], on_sent: Callable[[int], None]
) -> None:
    """Send flights in order, a batch with each write.

    Args:
        client: of the namespace to send to.
        flights: what to send.
        on_sent: called with the number of flights of each batch that was accepted.
    """
    for start in range(0, len(flights), BATCH):
        batch = flights[start : start + BATCH]
        await client.send_many(
            Envelope(scope_id=one.scope_id, message=one.message, message_id=f"flight-{one.row}")
            for one in batch
        )
        on_sent(len(batch))


async def main() -> int:
    """Send the month and say how much that was."""
    url, namespace = client_settings(__doc__)
    flights = read_month()
    async with Client(url, namespace=namespace) as client:
        await send_flights(client, flights, lambda _count: None)
    print(f"sent {len(flights):,} flights")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
