"""Bulk: many messages of one caller, packed while those before them are written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import BacklogFull, MessageError, NotReplicated, WherryError
from ..model import EntryId, Outgoing
from ..tracing import current_headers
from .envelope import Envelope, pack_envelope, pack_plain
from .outgoings import Batch, Order
from .sending import Sender
from .session import Session

Item = Envelope | tuple[str, Mapping[str, Any]]
"""What `Client.send_many` takes: a scope id and a message, or an `Envelope`."""

_CHUNK = 1_024
_CHUNK_BYTES = 2**20
_CHUNKS_AHEAD = 2


async def send_many(
    sender: Sender, messages: Iterable[Item], session: Session, replicas: int
) -> list[EntryId]:
    """Send messages; see `Client.send_many`."""
    order = Order()
    under_way: deque[Batch] = deque()
    accepted: list[EntryId | None] = []
    failure: WherryError | None = None
    refused: BacklogFull | NotReplicated | None = None
    remaining = iter(messages)
    is_last = False
    trace = current_headers()
    try:
        while under_way or not is_last:
            if not is_last:
                chunk, failure = _pack_chunk(remaining, session, trace)
                is_last = not chunk or failure is not None
                if chunk:
                    under_way.append(await sender.put(chunk, order, replicas=replicas))
                    await asyncio.sleep(0)  # lets it be written while the next is packed
            if under_way and (is_last or len(under_way) >= _CHUNKS_AHEAD):
                batch = under_way.popleft()
                await batch.done
                refused = _collect(batch, accepted) or refused
                failure = order.error or failure
                is_last = is_last or failure is not None
    except asyncio.CancelledError:
        for batch in under_way:
            batch.done.cancel()
        raise
    if error := failure or refused:
        error.accepted = accepted
        raise error
    return [entry_id for entry_id in accepted if entry_id is not None]


def _pack_chunk(
    messages: Iterator[Item], session: Session, trace: Mapping[str, Any]
) -> tuple[list[Outgoing], MessageError | None]:
    """The next messages, and what is wrong with the one behind them."""
    limit_bytes = session.config.message_bytes
    chunk: list[Outgoing] = []
    size = 0
    for item in messages:
        try:
            if trace or isinstance(item, Envelope):
                entry = pack_envelope(_within(item, trace), limit_bytes, session.unix_s())
            else:
                entry = pack_plain(*item, limit_bytes)
        except MessageError as error:
            return chunk, error
        chunk.append(entry)
        size += len(entry.message)
        if len(chunk) == _CHUNK or size > _CHUNK_BYTES:
            break
    return chunk, None


def _within(item: Item, trace: Mapping[str, Any]) -> Envelope:
    """The same as a part of a trace, unless it belongs to one already."""
    envelope = item if isinstance(item, Envelope) else Envelope(scope_id=item[0], message=item[1])
    return replace(envelope, headers={**trace, **(envelope.headers or {})}) if trace else envelope


def _collect(batch: Batch, accepted: list[EntryId | None]) -> BacklogFull | NotReplicated | None:
    """Note what became of a batch; the first refusal, or what else the caller must hear of."""
    refused: BacklogFull | NotReplicated | None = None
    for result in batch.results:
        if isinstance(result, str):
            accepted.append(EntryId(result.removeprefix("=")))
        elif isinstance(result, NotReplicated):
            accepted.append(result.entry_id)
            refused = refused or result
        else:
            accepted.append(None)
            # What was refused weighs more than what may yet be lost.
            if isinstance(result, BacklogFull) and not isinstance(refused, BacklogFull):
                refused = result
    return refused
