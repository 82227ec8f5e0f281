"""Exit codes: which error ends a command with which code, and how it is told.

A mistake of the user's is one sentence on stderr; only a crash shows a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Generator
from enum import IntEnum
from typing import cast

import typer

from ..errors import (
    ApplicationError,
    ConfigError,
    MessageError,
    StartupFailed,
    StoreIncompatible,
    StoreNotFound,
    StoreRefused,
    StoreUnavailable,
    WherryError,
)


class ExitCode(IntEnum):
    """How a command ended."""

    DRAINED = 0
    CRASHED = 1
    USAGE = 2
    STARTUP_FAILED = 3
    UNREACHABLE = 4
    REFUSED = 5
    DRAIN_DEADLINE_PASSED = 6
    INCOMPATIBLE = 7
    UNFIT = 8
    INTERRUPTED = 130


_CODES: tuple[tuple[type[WherryError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (ApplicationError, ExitCode.USAGE),
    (StoreNotFound, ExitCode.USAGE),
    (MessageError, ExitCode.USAGE),
    (StartupFailed, ExitCode.STARTUP_FAILED),
    (StoreUnavailable, ExitCode.UNREACHABLE),
    (StoreRefused, ExitCode.REFUSED),
    (StoreIncompatible, ExitCode.INCOMPATIBLE),
)


def let_go_of_logs() -> None:
    """Drop what a terminal that was closed cannot take any more, and what no log can.

    Python would end the process with 120 instead of the command's own code.
    https://docs.python.org/3/library/sys.html#sys.exit
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if stream is sys.stdout and error.errno != errno.EIO:
                raise  # an answer that was not written is an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def reported(*, worker: bool = False) -> Generator[None]:
    """End the command with the right code and a sentence for whatever is raised inside.

    Args:
        worker: errors that stand for no code of their own are crashes and show a traceback;
            otherwise an error of Wherry's own is a sentence and exit code 1.

    Raises:
        typer.Exit: in place of every error but those that end Python itself.
    """
    try:
        yield
        sys.stdout.flush()  # here, where a closed pipe is still known for what it is
    except typer.Exit:
        raise
    except BrokenPipeError:
        _forget_stdout()
        raise typer.Exit(ExitCode.DRAINED) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.DRAINED if worker else ExitCode.INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 -- the border: told to the user, then the end
        known = find_known(error)
        if known is not None and not (worker and known[1] is ExitCode.CRASHED):
            complain(str(known[0]))
            raise typer.Exit(known[1]) from None
        traceback.print_exception(error)
        raise typer.Exit(ExitCode.CRASHED) from None


def find_known(error: BaseException) -> tuple[WherryError, ExitCode] | None:
    """The error that tells the story, out of a group too, and its exit code.

    None if anything unknown is among them: then it is a crash.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        found = [find_known(one) for one in group.exceptions]
        known = [one for one in found if one is not None]
        # Several tasks may fail for one reason; the first that has a code of its own says it.
        known.sort(key=lambda one: one[1] is ExitCode.CRASHED)
        return known[0] if len(known) == len(found) else None
    if not isinstance(error, WherryError):
        return None
    for kind, code in _CODES:
        if isinstance(error, kind):
            return error, code
    return error, ExitCode.CRASHED


def complain(text: str) -> None:
    """Say on stderr what went wrong."""
    print(f"wherry: {text}", file=sys.stderr)


def _forget_stdout() -> None:
    # Python flushes stdout at its end and would complain about the closed pipe:
    # https://docs.python.org/3/library/signal.html#note-on-sigpipe
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
