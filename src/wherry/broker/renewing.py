"""Renewing: lengthens leases, from a thread or from the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..errors import StoreError, WherryError
from ..model import Partition, Token
from .blocking import BlockingLink
from .cluster import is_cluster
from .link import Command, Link
from .scripts import Script, is_unknown_script, run_many
from .wire import Keys

Held = Sequence[tuple[Partition, Token]]


def renew_command(
    script: Script, keys: Keys, held: Sequence[tuple[Partition, Token]], ttl_ms: int
) -> Command:
    """The one command that renews all leases; its answer has 1 for each that is still ours."""
    names = [keys.lease(partition) for partition, _ in held]
    return script.command(names, (ttl_ms, *(token for _, token in held)))


async def renew_held(
    link: Link, script: Script, keys: Keys, held: Sequence[tuple[Partition, Token]], ttl_ms: int
) -> list[bool]:
    """Renew leases from the event loop; False for each that is no longer ours."""
    parts = [[one] for one in held] if is_cluster(link) else [held]
    calls = [(script, renew_command(script, keys, part, ttl_ms)) for part in parts]
    kept: list[bool] = []
    for answer in await run_many(link, calls):
        if isinstance(answer, Exception):
            raise answer
        kept += [one == 1 for one in cast("list[int]", answer)]
    return kept


def renew_together(
    link: BlockingLink, script: Script, keys: Keys, held: Held, ttl_ms: int
) -> list[bool]:
    """Renew leases in one command; False for each that is no longer ours.

    Raises:
        WherryError: as `BlockingLink.call` does.
    """
    command = renew_command(script, keys, held, ttl_ms)
    try:
        answers = link.call(*command)
    except StoreError as error:
        if not is_unknown_script(error):
            raise
        answers = link.call(*script.whole(command))
    return [answer == 1 for answer in cast("list[int]", answers)]


def renew_apart(
    link: BlockingLink, script: Script, keys: Keys, held: Held, ttl_ms: int
) -> list[bool | WherryError]:
    """Renew leases in one command each, as a cluster wants it; an error where it is not known."""
    commands = [renew_command(script, keys, [one], ttl_ms) for one in held]
    answers = link.calls(commands)
    unknown = [at for at, answer in enumerate(answers) if is_unknown_script(answer)]
    if unknown:
        whole: list[Command] = [script.whole(commands[at]) for at in unknown]
        for at, answer in zip(unknown, link.calls(whole), strict=True):
            answers[at] = answer
    return [_read(answer) for answer in answers]


def _read(answer: Any) -> bool | WherryError:
    return answer if isinstance(answer, WherryError) else answer[0] == 1
