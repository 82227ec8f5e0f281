"""Config: every bound and every choice of a worker, with its unit, default and reason.

Nothing below the command line reads the environment; see `wherry.cli.settings` for flags,
``WHERRY_*`` variables and ``[tool.wherry]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import ConfigError

DEFAULT_PARTITIONS = 64
MIN_LEASE_S = 0.2
MOST_GATHER_S = 1.0
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]+")


def _setting(default: Any, unit: str, reason: str) -> Any:
    return field(default=default, metadata={"unit": unit, "reason": reason})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a worker; immutable and checked when it is built.

    The unit and the reason of each field stand in its metadata, from which
    ``docs/configuration.md`` is checked.

    Raises:
        ConfigError: a value is out of its range or contradicts another.
    """

    namespace: str = _setting("wherry", "name", "keeps applications on one Redis apart")
    partitions: int | None = _setting(
        None, "count", "None adopts what the namespace has, 64 if it is new; fixed for its life"
    )
    channel: str = _setting("wherry", "name", "the route that a channel scope carries")
    max_applications: int = _setting(1_000, "instances", "memory: idle ones beyond it are ended")
    concurrency: int = _setting(1_000, "instances", "how many may handle a message at a time")
    in_flight: int = _setting(4_096, "entries", "read but unfinished; Redis is the buffer beyond")
    in_flight_per_partition: int = _setting(1_024, "entries", "one partition cannot fill it all")
    in_flight_bytes: int = _setting(64 * 2**20, "bytes", "the same, for large messages")
    scope_waiting: int = _setting(64, "entries", "a hot scope cannot fill its partition's window")
    deferred: int = _setting(100_000, "ids", "of hot scopes, per partition; full: not read")
    replies_held: int = _setting(1_000, "replies", "held until the commit, for one message")
    replies_held_bytes: int = _setting(2**20, "bytes", "the same, in bytes")
    message_bytes: int = _setting(2**20, "bytes", "largest message in or out")
    state_bytes: int = _setting(64 * 2**10, "bytes", "largest durable state of a scope")
    durable_state: bool = _setting(False, "flag", "load and keep scope['durable']")
    state_ttl_s: float = _setting(0.0, "seconds", "untouched durable state expires; 0 keeps it")
    reply_length: int = _setting(1_000, "replies", "kept for each scope, about")
    reply_ttl_s: float = _setting(3_600.0, "seconds", "replies of a silent scope are dropped")
    backlog: int = _setting(100_000, "entries", "per partition; beyond, producers get BacklogFull")
    dedup_ttl_s: float = _setting(86_400.0, "seconds", "how long a message_id is remembered")
    max_attempts: int = _setting(5, "attempts", "then the message becomes a dead letter")
    on_dead_letter: str = _setting(
        "bury", "bury|hold", "after the last attempt: bury the message, or hold its scope"
    )
    probe_s: float = _setting(
        5.0, "seconds", "a message suspected of killing processes runs alone so long; doubles"
    )
    handler_timeout_s: float = _setting(0.0, "seconds", "a longer attempt fails; 0 never")
    retry_backoff_s: float = _setting(0.5, "seconds", "before the second attempt; doubles")
    retry_backoff_max_s: float = _setting(30.0, "seconds", "longest wait between attempts")
    idle_timeout_s: float = _setting(0.0, "seconds", "end an instance idle for longer; 0 never")
    end_timeout_s: float = _setting(5.0, "seconds", "wait for a cancelled instance to end")
    end_event: str = _setting("", "type", "message that announces an instance's end; '' none")
    end_grace_s: float = _setting(1.0, "seconds", "between that message and the cancellation")
    ack_mode: str = _setting("auto", "auto|on|off", "finish messages by message.ack")
    lease_s: float = _setting(6.0, "seconds", "how long a dead worker's partitions stay shut")
    beat_s: float = _setting(2.0, "seconds", "renewals; at most a third of the lease")
    drain_timeout_s: float = _setting(25.0, "seconds", "for running messages after SIGTERM")
    block_s: float = _setting(5.0, "seconds", "longest blocking read")
    gather_s: float = _setting(
        0.04, "seconds", "longest pause between reads where processes wait for cores; 0 never"
    )
    socket_timeout_s: float = _setting(10.0, "seconds", "no answer for longer: reconnect")
    start_wait_s: float = _setting(60.0, "seconds", "a worker waits so long for its Redis at first")
    replicas_timeout_s: float = _setting(
        1.0, "seconds", "longest wait for replicas, where a message is sent with replicas="
    )
    lifespan: str = _setting("auto", "auto|on|off", "the application's lifespan protocol")
    lifespan_timeout_s: float = _setting(30.0, "seconds", "for start-up and for shutdown")

    def __post_init__(self) -> None:
        """Check every field by itself and those that depend on one another."""
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(
                f"namespace {self.namespace!r} may hold letters, digits, '_', '.' and '-' only"
            )
        if self.partitions is not None and not 1 <= self.partitions <= 4096:
            raise ConfigError(f"partitions is {self.partitions}; it must lie between 1 and 4096")
        self._check_positive()
        for name in ("ack_mode", "lifespan"):
            value = getattr(self, name)
            if value not in ("auto", "on", "off"):
                raise ConfigError(f"{name} is {value!r}; it must be auto, on or off")
        if self.on_dead_letter not in ("bury", "hold"):
            raise ConfigError(f"on_dead_letter is {self.on_dead_letter!r}; it must be bury or hold")
        if self.lease_s < MIN_LEASE_S:
            raise ConfigError(f"lease_s is {self.lease_s:g}; it must be at least {MIN_LEASE_S:g}")
        if self.beat_s > self.lease_s / 3 + 1e-9:
            raise ConfigError(
                f"beat_s is {self.beat_s:g}, more than a third of lease_s ({self.lease_s:g}): "
                "one late beat would lose the lease; shorten the beat or lengthen the lease"
            )
        if self.socket_timeout_s <= self.block_s:
            raise ConfigError(
                f"socket_timeout_s ({self.socket_timeout_s:g}) must be above "
                f"block_s ({self.block_s:g}), or every quiet read looks like a dead connection"
            )
        if self.gather_s > MOST_GATHER_S:
            raise ConfigError(
                f"gather_s is {self.gather_s:g}; it must be at most {MOST_GATHER_S:g}: meanwhile "
                "nothing is read, nor what has come to be ours"
            )
        if self.in_flight_per_partition > self.in_flight:
            raise ConfigError("in_flight_per_partition must not be above in_flight")

    def _check_positive(self) -> None:
        may_be_zero = {
            "state_ttl_s",
            "handler_timeout_s",
            "idle_timeout_s",
            "end_grace_s",
            "gather_s",
            "retry_backoff_s",
            "start_wait_s",
        }
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if value < 0 or (value == 0 and setting.name not in may_be_zero):
                unit = setting.metadata["unit"]
                raise ConfigError(f"{setting.name} is {value:g} {unit}; it must be above 0")
