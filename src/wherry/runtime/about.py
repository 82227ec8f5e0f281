"""About: what a worker says of itself in its member hash, at each beat."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version

from .holding import Holdings
from .latencies import Latencies
from .pool import Pool

_COUNTED = ("done", "retried", "dead", "expired", "replies")


class About:
    """Describes one run of a worker.

    Attributes:
        lacks: what the server lacks, by the names in `wherry.broker.capabilities.MISSED`.
        latencies: of messages, None: nobody measures them.
    """

    __slots__ = (
        "_beat_s", "_began", "_busy", "_fixed", "_holdings", "_lately", "_now_s", "_pool",
        "_rates", "lacks", "latencies",
    )  # fmt: skip

    def __init__(
        self,
        holdings: Holdings,
        pool: Pool,
        busy: Callable[[], int],
        *,
        beat_s: float,
        started_unix_s: float,
        now_s: Callable[[], float],
    ) -> None:
        """Look at the worker's parts.

        Args:
            holdings: its partitions, with what was done.
            pool: its instances.
            busy: how many of them handle a message.
            beat_s: time between two beats that nothing hurries.
            started_unix_s: now, as this computer says.
            now_s: monotonic clock.
        """
        self.lacks: Sequence[str] = ()
        self.latencies: Latencies | None = None
        self._holdings = holdings
        self._pool = pool
        self._busy = busy
        self._beat_s = beat_s
        self._now_s = now_s
        self._fixed = {
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
            "version": version("wherry"),
            "started": str(int(started_unix_s * 1000)),
        }
        self._began = now_s()
        self._rates = _Rates(now_s(), self._counts())
        self._lately: dict[str, str] = {}

    def fields(self, *, can_claim: bool, state: str) -> dict[str, str]:
        """All of it, as text.

        Args:
            can_claim: whether what it claimed would be read.
            state: running, paused or draining.
        """
        in_flight, _ = self._holdings.in_flight()
        now_s, counts = self._now_s(), self._counts()
        # Hints make beats come close together: what two such saw is no rate.
        if now_s - self._rates.since_s >= self._beat_s / 2:
            self._rates.take(now_s, counts)
            if self.latencies is not None:
                self._lately = self.latencies.take()
        return {
            **self._fixed,
            "up_ms": str(int((now_s - self._began) * 1000)),
            "state": state,
            "partitions": str(len(self._holdings)),
            "avoided": str(len(self._holdings.avoided)),
            "can_claim": str(int(can_claim)),
            "in_flight": str(in_flight),
            "instances": str(len(self._pool.lanes)),
            "busy": str(self._busy()),
            "lacks": ",".join(self.lacks),
            **{name: str(count) for name, count in zip(_COUNTED, counts, strict=True)},
            **self._rates.fields,
            **self._lately,
        }

    def _counts(self) -> tuple[int, ...]:
        return tuple(getattr(self._holdings.tallies, name) for name in _COUNTED)


class _Rates:
    """What was counted between two beats."""

    __slots__ = ("_before", "fields", "since_s")

    def __init__(self, now_s: float, counts: tuple[int, ...]) -> None:
        self.since_s = now_s
        self._before = counts
        self.fields = {"last_ms": "0", **{f"last_{name}": "0" for name in _COUNTED}}

    def take(self, now_s: float, counts: tuple[int, ...]) -> None:
        self.fields = {"last_ms": str(int((now_s - self.since_s) * 1000))}
        for name, count, before in zip(_COUNTED, counts, self._before, strict=True):
            self.fields[f"last_{name}"] = str(count - before)
        self.since_s, self._before = now_s, counts
