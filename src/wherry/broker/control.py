"""Control: what operators ask of running workers, and what these answer.

A request is published on a channel that every worker hears. Whom it is meant for puts an answer
onto a list that is named after the request, is bounded, and expires: nothing of it stays.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from .link import Link
from .scripts import Script
from .wire import Keys

REQUEST_BYTES = 4_096
"""A longer request is not looked at."""
ANSWER_TTL_MS = 10_000
MOST_ANSWERS = 1_000
"""So many answers a list takes."""
MOST_ROWS = 200
"""So many scopes one worker tells of."""

_ASK_AGAIN_S = 1.0
_REQUEST_ID = re.compile(r"[0-9a-f]{8,32}")


class Deed(Enum):
    """What a worker can be asked for."""

    DRAIN = "drain"
    """End as after SIGTERM."""
    STOP = "stop"
    """End as after a second SIGTERM: hand back at once."""
    SCOPES = "scopes"
    """Tell of some scopes: those whose oldest message is the oldest, or others as `Order` says."""
    SCOPE = "scope"
    """Tell of one scope."""


class Order(Enum):
    """Which scopes are told of first."""

    AGE = "age"
    """Whose message in hand was sent longest ago."""
    WAITING = "waiting"
    """For whom most messages wait."""
    ATTEMPTS = "attempts"
    """Whose message was tried most often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        deed: what is to be done.
        worker: who is to do it, "" for everybody.
        scope: for `Deed.SCOPE`, whose.
        order: for `Deed.SCOPES`, which come first.
        count: the same, how many of each worker, at most `MOST_ROWS`.
        request_id: names the request.
    """

    deed: Deed
    worker: str = ""
    scope: str = ""
    order: Order = Order.AGE
    count: int = 50
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))


def write_request(request: Request) -> bytes:
    """A request as it is published."""
    return json.dumps(
        {
            "id": request.request_id,
            "do": request.deed.value,
            "to": request.worker,
            "scope": request.scope,
            "order": request.order.value,
            "count": request.count,
        }
    ).encode()


def read_request(data: bytes) -> Request | None:
    """A request as it was heard; None if it is none that this release knows."""
    if len(data) > REQUEST_BYTES:
        return None
    try:
        fields = cast("dict[str, Any]", json.loads(data))
        request_id = str(fields["id"])
        if not _REQUEST_ID.fullmatch(request_id):
            return None
        scope = str(fields.get("scope", ""))
        scope.encode()  # JSON can say what is no UTF-8, and such a scope belongs nowhere
        return Request(
            request_id=request_id,
            deed=Deed(fields["do"]),
            worker=str(fields.get("to", "")),
            scope=scope,
            order=Order(fields.get("order", "age")),
            count=max(1, min(MOST_ROWS, int(fields.get("count", 50)))),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


async def write_answer(
    link: Link, script: Script, keys: Keys, request: Request, answer: Mapping[str, object]
) -> None:
    """Put an answer where whoever asked waits for it.

    Args:
        link: connection.
        script: ``answer.lua``.
        keys: of the namespace.
        request: what is answered.
        answer: for `json.dumps`; ``worker`` in it says whose it is.

    Raises:
        WherryError: as `Link.call` says.
    """
    packed = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    names = (keys.answer(request.request_id),)
    await script.run(link, names, (ANSWER_TTL_MS, MOST_ANSWERS, packed))


async def ask(
    link: Link, keys: Keys, request: Request, workers: Collection[str], within_s: float
) -> dict[str, dict[str, Any]]:
    """Ask workers and wait for their answers.

    Pub/sub may lose a request, so that it is published again while answers are missing; who is
    asked twice does the same as once.

    Args:
        link: connection.
        keys: of the namespace.
        request: what is asked.
        workers: whose answers are waited for.
        within_s: how long.

    Returns:
        Answers by worker; those are missing that did not answer in time.

    Raises:
        WherryError: as `Link.call` says.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    key = keys.answer(request.request_id)
    answers: dict[str, dict[str, Any]] = {}
    while len(answers) < len(workers) and loop.time() < until_s:
        await link.call("PUBLISH", keys.control, write_request(request))
        again_s = min(until_s, loop.time() + _ASK_AGAIN_S)
        while len(answers) < len(workers) and (left_s := again_s - loop.time()) > 0:
            # 0 would wait for ever.
            found = await link.call("BLPOP", key, f"{max(left_s, 0.01):.3f}")
            if found is not None:
                answer = cast("dict[str, Any]", json.loads(found[1]))
                if answer.get("worker") in workers:
                    answers[answer["worker"]] = answer
    return answers
