"""Burials: what becomes of a message that has failed too often."""

from __future__ import annotations

from collections.abc import Callable

from ..broker.attempts import pack_row
from ..broker.commits import Bury, Hold
from ..config import Config
from ..hooks import Hooks
from ..model import AttemptsRow
from ..tracing import trace_of
from .committer import Committer
from .delivery import Delivery, reply_headers
from .holding import Track


class Burials:
    """Buries it and lets its scope go on, or holds the scope, as ``on_dead_letter`` says."""

    __slots__ = ("_attempt_of", "_committer", "_config", "_hooks")

    def __init__(
        self,
        config: Config,
        committer: Committer,
        attempt_of: Callable[[Track, Delivery], str],
        hooks: Hooks,
    ) -> None:
        """Write through a committer; ``attempt_of`` names the run of a delivery."""
        self._config = config
        self._committer = committer
        self._attempt_of = attempt_of
        self._hooks = hooks

    def give_up(self, track: Track, delivery: Delivery, reason: str, trace: str) -> None:
        """No further attempt is made at an entry that has ``delivery.attempt`` of them.

        When its scope is held, ``track.is_parked`` is set, and what is in hand of it must go
        back to the deferred ids.
        """
        if self._config.on_dead_letter == "hold":
            self._hold(track, delivery, reason)
            return
        entry = delivery.entry
        operation = Bury(
            entry.id,
            entry.scope_id,
            reason,
            trace,
            delivery.attempt,
            entry.extras.inbox,
            delivery.emitted,
            len(reason) + len(trace) + entry.size_bytes,
            headers=reply_headers(entry),
        )
        self._committer.put(track, operation)

    def _hold(self, track: Track, delivery: Delivery, reason: str) -> None:
        entry, holding = delivery.entry, track.holding
        row = AttemptsRow(attempts=delivery.attempt, error=reason, is_held=True)
        holding.attempts[entry.id] = row
        holding.suspects.pop(entry.id, None)
        holding.held[entry.id] = entry.scope_id
        track.is_parked = True
        operation = Hold(
            entry.id,
            entry.scope_id,
            pack_row(row),
            f"Held: {reason}",
            entry.extras.inbox,
            delivery.emitted,
            self._attempt_of(track, delivery),
            2 * len(reason) + 256,
            reply_headers(entry),
        )
        self._committer.put(track, operation)
        self._hooks.warn(
            "a message that failed too often holds its scope until it is retried or dropped",
            partition=holding.partition,
            scope=entry.scope_id,
            entry=entry.id,
            attempt=delivery.attempt,
            reason=reason,
            **trace_of(entry.extras.headers),
        )
