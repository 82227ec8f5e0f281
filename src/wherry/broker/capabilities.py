"""Capabilities: what a server refuses of what a worker would like, found out by asking.

Managed services and restricted users lack commands; versions and names tell nothing about that.
Each command here has a stand-in, and `MISSED` says what is missed without it. What there is no
stand-in for is refused when it is used, with the sentence that `map_error` has for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import StoreError, StoreRefused
from .connect import CommandLink
from .link import Command
from .scripts import Scripts

MISSED: Mapping[str, str] = {
    "script flags": "workers cannot commit either when its memory is full",
    "INFO": "lost data and eviction of keys are not noticed",
    "CLIENT ID": "reads that wait for too little are cut off",
    "CLIENT UNBLOCK": "reads that wait for too little are cut off",
    "PUBLISH": "released partitions are found at the next beat",
    "SUBSCRIBE": "released partitions are found at the next beat",
}
"""What a server may lack -> what is missed without it."""

_PROBES: Mapping[str, Command] = {
    "INFO": ("INFO", "server"),
    "CLIENT ID": ("CLIENT", "ID"),
    # No connection has this number.
    "CLIENT UNBLOCK": ("CLIENT", "UNBLOCK", 0),
}


async def find_lacks(link: CommandLink, scripts: Scripts, channel: str) -> tuple[str, ...]:
    """What the server behind a link lacks, by the names in `MISSED`, in their order.

    Nothing is changed. On the channel a hint is published that workers look again, as they do
    anyhow when one joins.

    Raises:
        StoreUnavailable: it does not answer.
    """
    probes = {**_PROBES, "PUBLISH": ("PUBLISH", channel, "joining")}
    answers = await link.calls(list(probes.values()))
    refused = (StoreError, StoreRefused)
    lacks: set[str] = set()
    for name, answer in zip(probes, answers, strict=True):
        if isinstance(answer, refused):
            lacks.add(name)
        elif isinstance(answer, Exception):
            raise answer
        elif name == "INFO" and b"run_id:" not in answer:
            lacks.add(name)
    if not scripts.has_flags:
        lacks.add("script flags")
    subscription = await link.subscribe(channel)
    try:
        await subscription.confirm()
    except refused:
        lacks.add("SUBSCRIBE")
    finally:
        await subscription.aclose()
    return tuple(name for name in MISSED if name in lacks)
