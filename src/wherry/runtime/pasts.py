"""Pasts: goes on with entries where their last attempt, or their last owner, has stopped."""

from __future__ import annotations

from enum import Enum

from ..broker.attempts import pack_row
from ..broker.commits import Fail
from ..config import Config
from ..engine.suspects import MOST_CAREFUL, is_suspect
from ..model import AttemptsRow, EntryId
from .burials import Burials
from .clock import Clock
from .committer import Committer
from .delivery import Delivery
from .holding import Holding, Track
from .probing import Probing

ROW_BYTES = 256


class Fate(Enum):
    """What becomes of an entry that was read."""

    DELIVER = "deliver"
    DEFER = "defer"
    FINISH = "finish"


class Pasts:
    """Looks at entries of partitions in which something has failed, before they are delivered."""

    __slots__ = ("_burials", "_clock", "_committer", "_config", "_probing")

    def __init__(
        self,
        config: Config,
        clock: Clock,
        committer: Committer,
        burials: Burials,
        probing: Probing,
    ) -> None:
        """Write what is counted through a committer."""
        self._config = config
        self._clock = clock
        self._committer = committer
        self._burials = burials
        self._probing = probing

    def resume(self, track: Track, delivery: Delivery) -> Fate:
        """Take up what is known of an entry before it is delivered."""
        holding, entry = track.holding, delivery.entry
        row = holding.attempts.get(entry.id)
        judged = self._judge(holding, delivery, row)
        if judged is not None:
            row = judged
            if holding.takeover is not None and holding.takeover.is_again:
                track.careful = MOST_CAREFUL
            delivery.attempt = row.attempts
            if row.attempts >= self._config.max_attempts:
                self._burials.give_up(track, delivery, row.error, "")
                return Fate.DEFER if track.is_parked else Fate.FINISH
            holding.attempts[entry.id] = row
            self._committer.put(track, Fail(entry.id, entry.scope_id, pack_row(row), ROW_BYTES))
        if row is None:
            return Fate.DEFER if track.careful and not track.is_at_rest else Fate.DELIVER
        if row.is_held:
            holding.held[entry.id] = entry.scope_id
            track.is_parked = True
            return Fate.DEFER
        delivery.attempt = row.attempts + 1
        wait_s = (row.not_before_unix_ms - self._clock.redis_ms()) / 1000
        wait_s = min(wait_s, self._config.retry_backoff_max_s)
        track.not_before_s = max(track.not_before_s, self._clock.now_s() + wait_s)
        if is_suspect(row) and not self._probing.may_enter(track, entry.id):
            track.is_parked = True
            return Fate.DEFER
        return Fate.DELIVER

    def _judge(
        self, holding: Holding, delivery: Delivery, row: AttemptsRow | None
    ) -> AttemptsRow | None:
        """What an unclean takeover adds to the past of an entry, if anything."""
        takeover, entry = holding.takeover, delivery.entry
        if takeover is None:
            return None
        if takeover.is_over(entry.id):
            holding.takeover = None
            return None
        return takeover.judge(entry.id, entry.scope_id, row)

    def is_held(self, holding: Holding, entry_id: EntryId) -> bool:
        """Whether an entry holds its scope: then it does not expire, it waits to be released."""
        row = holding.attempts.get(entry_id)
        return row is not None and row.is_held
