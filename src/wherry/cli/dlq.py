"""``wherry dlq``: look at dead letters and held messages, send them again, drop them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..errors import ConfigError, WherryError
from . import options as o
from .exits import ExitCode, reported
from .opening import confirm, opened, read

if TYPE_CHECKING:
    from ..broker.link import Link
    from ..client.letter_search import Place
    from .letters import Choice, Letters, Listing, Outcome
    from .settings import Settings

_T = TypeVar("_T")

_UNITS_S = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
_AGE = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d|)")

_Scope = Annotated[str, typer.Option("--scope", help="Of this scope.")]
_Error = Annotated[str, typer.Option("--error", metavar="TEXT", help="With this in their error.")]
_Older = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Such as 90s, 15m, 2h or 7d.")
]
_Newer = Annotated[str | None, typer.Option("--newer-than", metavar="AGE", help="The same.")]
_Partition = Annotated[int | None, typer.Option("--partition", help="Of this one.", min=0)]
_Held = Annotated[
    bool | None,
    typer.Option("--held/--dead", help="Held messages alone, or dead letters alone."),
]
_Limit = Annotated[int, typer.Option("--limit", help="Most of them in one call.", min=1, max=1_000)]
_After = Annotated[
    str | None, typer.Option("--after", metavar="LETTER", help="Go on where a call ended.")
]
_All = Annotated[bool, typer.Option("--all", help="All of them, where no option chooses some.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_Letters = Annotated[
    list[str] | None, typer.Argument(metavar="[LETTER]...", help="As ls shows it, such as 7/1-0.")
]
_Letter = Annotated[str, typer.Argument(metavar="LETTER", help="As ls shows it, such as 7/1-0.")]

commands = typer.Typer(help="Dead letters: ls, show, replay, drop.", no_args_is_help=True)


@commands.command("ls")
def ls(
    *,
    scope: _Scope = "",
    error: _Error = "",
    older_than: _Older = None,
    newer_than: _Newer = None,
    partition: _Partition = None,
    held: _Held = None,
    limit: _Limit = 100,
    after: _After = None,
    as_json: o.AsJson = False,
    watch: o.Watch = False,
    every: o.Every = 2.0,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """List what was given up, oldest first in each partition."""
    with reported():
        from . import letter_texts, tables
        from .letters import open_letters

        choice = _choose(scope, error, (older_than, newer_than), partition, held, limit, after)
        settings = read({"url": url, "namespace": namespace}, set_)
        with opened(settings) as store:

            async def look(_: Link) -> Listing:
                async with open_letters(store, settings.config) as letters:
                    return await letters.list(choice)

            showing = tables.Showing(as_json=as_json, watch=watch, every_s=every)
            text, data = letter_texts.listing_text, letter_texts.listing_data
            tables.show(store, look, text, data, showing)


@commands.command("show")
def show(
    letter: _Letter,
    *,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Show all about one: its message, its error and the traceback."""
    with reported():
        from ..client.letter_search import Place
        from . import letter_texts

        place = Place.parse(letter)
        settings = read({"url": url, "namespace": namespace}, set_)
        found = _with_letters(settings, lambda letters: letters.get(place))
        if found is None:
            raise WherryError(_missing(place, settings.config.namespace))
        if as_json:
            print(json.dumps(letter_texts.letter_data(place, *found), indent=2))
        else:
            print(letter_texts.letter_text(place, *found))


@commands.command("replay")
def replay(
    letters: _Letters = None,
    *,
    scope: _Scope = "",
    error: _Error = "",
    older_than: _Older = None,
    newer_than: _Newer = None,
    partition: _Partition = None,
    held: _Held = None,
    all_: _All = False,
    limit: _Limit = 1_000,
    after: _After = None,
    dry_run: _DryRun = False,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Send letters again, behind what waits; held messages are tried again where they are."""
    with reported():
        choice = _choose(scope, error, (older_than, newer_than), partition, held, limit, after)
        places = _check_choice(letters, choice, takes_all=all_)
        settings = read({"url": url, "namespace": namespace}, set_)
        change = Change(drops=False, dry_run=dry_run)
        _tell(_change(settings, places, choice, change), change, as_json=as_json)


@commands.command("drop")
def drop(
    letters: _Letters = None,
    *,
    scope: _Scope = "",
    error: _Error = "",
    older_than: _Older = None,
    newer_than: _Newer = None,
    partition: _Partition = None,
    held: _Held = None,
    all_: _All = False,
    limit: _Limit = 1_000,
    after: _After = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Delete letters for good; the scope of a held message goes on without it."""
    with reported():
        choice = _choose(scope, error, (older_than, newer_than), partition, held, limit, after)
        places = _check_choice(letters, choice, takes_all=all_)
        settings = read({"url": url, "namespace": namespace}, set_)
        change = Change(drops=True, dry_run=dry_run)
        if not places and not dry_run and not yes:
            counted = _change(settings, [], choice, Change(drops=True, dry_run=True))
            confirm(f"drop {counted.done} dead letters for good?")
        _tell(_change(settings, places, choice, change), change, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is done to letters: they are dropped or sent again, or only counted."""

    drops: bool
    dry_run: bool

    @property
    def verb(self) -> str:
        """What was done."""
        return "dropped" if self.drops else "replayed"


def _change(settings: Settings, places: Sequence[Place], choice: Choice, change: Change) -> Outcome:
    async def work(letters: Letters) -> Outcome:
        if places:
            return await letters.change(places, drops=change.drops, dry_run=change.dry_run)
        return await letters.change_all(choice, drops=change.drops, dry_run=change.dry_run)

    return _with_letters(settings, work)


def _tell(outcome: Outcome, change: Change, *, as_json: bool) -> None:
    from . import letter_texts

    if as_json:
        data = letter_texts.outcome_data(outcome, change.verb, dry_run=change.dry_run)
        print(json.dumps(data, indent=2))
    else:
        print(letter_texts.outcome_text(outcome, change.verb, dry_run=change.dry_run))
    if outcome.refusal:
        raise WherryError(outcome.refusal)
    if outcome.gone:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.CRASHED)


def _choose(
    scope: str,
    error: str,
    ages: tuple[str | None, str | None],
    partition: int | None,
    held: bool | None,
    limit: int,
    after: str | None,
) -> Choice:
    from ..client.letter_search import Place
    from .letters import Choice

    older, newer = ages
    return Choice(
        scope=scope,
        error=error,
        older_than_s=_read_age("--older-than", older),
        newer_than_s=_read_age("--newer-than", newer),
        partition=partition,
        is_held=held,
        limit=limit,
        after=None if after is None else Place.parse(after),
    )


def _read_age(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{flag} {text!r} is no age; write a number and s, m, h or d: 15m")
    return float(match[1]) * _UNITS_S[match[2]]


def _check_choice(letters: Sequence[str] | None, choice: Choice, *, takes_all: bool) -> list[Place]:
    """The letters that are named; none if the options choose them."""
    from ..client.letter_search import Place

    named = [Place.parse(one) for one in letters or ()]
    if named and (takes_all or not choice.is_everything):
        raise ConfigError("name letters, or let options choose them; not both")
    if takes_all and not choice.is_everything:
        raise ConfigError("--all chooses all; leave it out where other options choose some")
    if not named and choice.is_everything and not takes_all:
        raise ConfigError(
            "which ones? name letters as `wherry dlq ls` shows them, or choose by --scope, "
            "--error, --older-than, --newer-than, --partition, --held, or take --all"
        )
    return named


def _missing(place: Place, namespace: str) -> str:
    what = "held message" if place.is_held else "dead letter"
    return (
        f"there is no {what} {place} in namespace {namespace} (any more); "
        "`wherry dlq ls` shows what there is"
    )


def _with_letters(settings: Settings, work: Callable[[Letters], Coroutine[Any, Any, _T]]) -> _T:
    from .letters import open_letters

    with opened(settings) as store:

        async def run() -> _T:
            async with open_letters(store, settings.config) as letters:
                return await work(letters)

        return asyncio.run(run())
