"""Login: what a new connection says before anything else."""

from __future__ import annotations

from collections.abc import Sequence


def log_in(username: str, password: str, database: int) -> list[Sequence[str | int]]:
    """The commands; each is answered by OK, or the login failed.

    Args:
        username: of an ACL user, "" for the default one.
        password: "" without a login.
        database: number; the first is there without asking, and may be all that a user may use.
    """
    commands: list[Sequence[str | int]] = []
    if password or username:
        user = (username,) if username else ()
        commands.append(("AUTH", *user, password))
    if database:
        commands.append(("SELECT", database))
    return commands
