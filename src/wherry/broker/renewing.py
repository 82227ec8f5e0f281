"""Renewing: how a thread lengthens leases; see also `wherry.broker.leases`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..errors import StoreError, WherryError
from ..model import Partition, Token
from .blocking import BlockingLink
from .leases import renew_command
from .link import Command
from .scripts import Script, is_unknown_script
from .wire import Keys

Held = Sequence[tuple[Partition, Token]]


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
