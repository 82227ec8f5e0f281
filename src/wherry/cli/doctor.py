"""``wherry doctor``: looks at the server and the namespace, and says what to do."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from . import options as o
from .exits import ExitCode, reported
from .opening import opened, read

if TYPE_CHECKING:
    from ..doctor.finding import Finding

_Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE",
        help="This user must be able to be a worker, producer, reader or operator; repeatable.",
    ),
]


def doctor(
    *,
    role: _Roles = None,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    partitions: o.Partitions = None,
    set_: o.Set = None,
) -> None:
    """Look at Redis and the namespace, and say what is wrong and what to do.

    Nothing is written. Exit code 8 if an error is found, 0 if there are only warnings or less.
    """
    with reported():
        settings = read({"url": url, "namespace": namespace, "partitions": partitions}, set_)
        wanted = _check_roles(role or ())
        from ..doctor.examination import examine
        from ..doctor.finding import Level
        from . import tables

        with opened(settings) as store:
            findings = asyncio.run(examine(store, settings.config, wanted))
        print(tables.to_json(_as_data(findings)) if as_json else _as_text(findings))
        if any(one.level is Level.ERROR for one in findings):
            raise typer.Exit(ExitCode.UNFIT)


def _check_roles(names: Sequence[str]) -> Sequence[str]:
    from ..doctor.rights import ROLES

    for name in names:
        if name not in ROLES:
            raise ConfigError(f"--role {name}: there is no such part; {', '.join(ROLES)}")
    return names


def _as_data(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "findings": [
            {
                "level": one.level.value,
                "subject": one.subject,
                "text": one.text,
                "remedy": one.remedy,
            }
            for one in findings
        ],
        **_counts(findings),
    }


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    levels = [one.level.value for one in findings]
    return {"errors": levels.count("error"), "warnings": levels.count("warning")}


def _as_text(findings: Sequence[Finding]) -> str:
    from .tables import WIDTH, visible

    subjects = max(len(one.subject) for one in findings)
    lines: list[str] = []
    for one in findings:
        head = f"{one.level.value:<7}  {one.subject:<{subjects}}  "
        margin = " " * len(head)
        lines += _wrap(visible(one.text), WIDTH, head, margin)
        if one.remedy:
            lines += _wrap(visible(one.remedy), WIDTH, f"{margin}-> ", f"{margin}   ")
    counts = _counts(findings)
    lines += ["", f"{_count(counts['errors'], 'error')}, {_count(counts['warnings'], 'warning')}"]
    return "\n".join(lines)


def _wrap(text: str, width: int, head: str, margin: str) -> list[str]:
    """Lines that can be copied: no word is cut or joined to another line by a hyphen."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
