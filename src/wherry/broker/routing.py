"""Routing: which command goes to which slot, and what must stay together.

Only commands that Wherry sends are known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .link import Argument, Command
from .slots import slot_of

_WITHOUT_KEY = frozenset(
    {
        *("ACL", "ASKING", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "EXEC", "FLUSHALL"),
        *("INFO", "KEYS", "MULTI", "PING", "ROLE", "SCAN", "SCRIPT", "TIME", "WAIT"),
    }
)
_BEHIND_SUBCOMMAND = frozenset({"XINFO", "OBJECT", "MEMORY"})
_SCRIPTS = frozenset({"EVAL", "EVALSHA"})


@dataclass(slots=True, eq=False)
class Unit:
    """Commands that go to one node, one after the other: one alone, or a transaction.

    Attributes:
        indexes: of the commands.
        slot: where they belong, None if any node will do.
    """

    indexes: list[int]
    slot: int | None


def key_of(command: Command) -> str | bytes | None:
    """The first key of a command, None if it has none; a channel counts as one."""
    name = str(command[0]).upper()
    if name in _SCRIPTS:
        key = command[3] if int(command[2]) else None
    elif name == "XREAD":
        key = command[list(command).index("STREAMS") + 1]
    elif name in _WITHOUT_KEY:
        key = None
    else:
        key = command[2 if name in _BEHIND_SUBCOMMAND else 1]
    return _as_key(key)


def plan_units(commands: Sequence[Command]) -> tuple[list[Unit], list[int]]:
    """Split commands into units, and the indexes of those that every node is asked (WAIT).

    What has no key goes where the keys before it go, or those behind it if there are none before:
    who asks for the time beside a key wants the time of its node.
    """
    units: list[Unit] = []
    everywhere: list[int] = []
    transaction: Unit | None = None
    for index, command in enumerate(commands):
        name = command[0]
        if name == "WAIT":
            everywhere.append(index)
            continue
        key = key_of(command)
        slot = None if key is None else slot_of(key)
        if transaction is not None:
            transaction.indexes.append(index)
            if transaction.slot is None:
                transaction.slot = slot
            if name == "EXEC":
                transaction = None
            continue
        unit = Unit([index], slot)
        units.append(unit)
        if name == "MULTI":
            transaction = unit
    _adopt(units)
    _adopt(reversed(units))
    return units, everywhere


def _adopt(units: Iterable[Unit]) -> None:
    slot: int | None = None
    for unit in units:
        if unit.slot is None:
            unit.slot = slot
        slot = unit.slot


def _as_key(key: Argument | None) -> str | bytes | None:
    return str(key) if isinstance(key, int) else key
