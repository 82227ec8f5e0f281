"""Liveness: whether a worker is a live member of the fleet, able to claim and to read.

What is asked and what the answers mean; the caller brings the connection. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .wire import Keys

Calls = Callable[[Sequence[tuple[str | int, ...]]], list[Any]]
"""Sends commands and returns their answers; an error may stand among them."""

_FIELDS = ("host", "can_claim", "partitions")
_LOOKED_AT = 1_000
"""Members that are looked at, those who have beaten last first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """What Redis says of one worker.

    Attributes:
        worker_id: its name.
        host: where it runs; "" if it is no member.
        beat_ms: age of its last beat by Redis' clock; -1 if it is no member.
        partitions: how many it said it holds.
        problem: what is wrong, "" if it lives and can claim and read.
    """

    worker_id: str
    host: str
    beat_ms: int
    partitions: int
    problem: str


def ask_worker(calls: Calls, keys: Keys, worker_id: str) -> Liveness:
    """How a worker is; raises the error that Redis answers with."""
    (now_s, now_us), beat = _checked(calls([("TIME",), ("ZSCORE", keys.members, worker_id)]))
    if beat is None:
        return Liveness(worker_id=worker_id, host="", beat_ms=-1, partitions=0, problem="no member")
    now_ms = int(now_s) * 1000 + int(now_us) // 1000
    return _ask_members(calls, keys, now_ms, [(worker_id, int(float(beat)))])[0]


def ask_host(calls: Calls, keys: Keys, host: str | None) -> list[Liveness]:
    """How the workers of a host are, of all hosts if None; those who beat last come first."""
    newest = ("ZREVRANGE", keys.members, 0, _LOOKED_AT - 1, "WITHSCORES")
    (now_s, now_us), flat = _checked(calls([("TIME",), newest]))
    now_ms = int(now_s) * 1000 + int(now_us) // 1000
    ids = [one.decode("utf-8", "replace") for one in cast("list[bytes]", flat[::2])]
    beats = [int(float(one)) for one in flat[1::2]]
    found = _ask_members(calls, keys, now_ms, list(zip(ids, beats, strict=True)))
    return [one for one in found if host is None or one.host == host]


def _ask_members(
    calls: Calls, keys: Keys, now_ms: int, beats: Sequence[tuple[str, int]]
) -> list[Liveness]:
    asked: list[tuple[str | int, ...]] = []
    for worker_id, _ in beats:
        key = keys.member(worker_id)
        asked += [("HMGET", key, *_FIELDS), ("PTTL", key)]
    answers = _checked(calls(asked))
    return [
        _judge(worker_id, now_ms - beat, answers[2 * index], answers[2 * index + 1])
        for index, (worker_id, beat) in enumerate(beats)
    ]


def _judge(worker_id: str, age_ms: int, fields: list[bytes | None], left_ms: int) -> Liveness:
    host, can_claim, partitions = ((one or b"").decode("utf-8", "replace") for one in fields)
    # A beat gives the hash twice the lease to live (lua/beat.lua), so that the lease can be told.
    lease_ms = (left_ms + age_ms) // 2
    problem = ""
    if left_ms < 0:
        problem = "no member any more"
    elif age_ms > lease_ms:
        problem = f"silent for {age_ms / 1000:.1f} s, longer than its lease"
    elif can_claim != "1":
        problem = "its reads are not answered"
    return Liveness(
        worker_id=worker_id,
        host=host,
        beat_ms=age_ms,
        partitions=int(partitions) if partitions.isdecimal() else 0,
        problem=problem,
    )


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
