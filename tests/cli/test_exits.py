"""Each error ends a command with its own code, and only a crash shows a traceback."""

from __future__ import annotations

import pytest
import typer

from wherry import errors
from wherry.cli.exits import reported


def ends_with(error: BaseException, *, worker: bool) -> int:
    with pytest.raises(typer.Exit) as raised, reported(worker=worker):
        raise error
    return raised.value.exit_code


KNOWN = [
    (errors.ConfigError("why"), 2),
    (errors.ApplicationError("why"), 2),
    (errors.StoreNotFound("why"), 2),
    (errors.MessageError("why"), 2),
    (errors.StartupFailed("why"), 3),
    (errors.StoreUnavailable("why"), 4),
    (errors.StoreRefused("why"), 5),
    (errors.StoreIncompatible("why"), 7),
]


@pytest.mark.parametrize("worker", [True, False])
@pytest.mark.parametrize(("error", "code"), KNOWN)
def test_known_error_is_a_sentence(
    error: errors.WherryError, code: int, worker: bool, capsys: pytest.CaptureFixture[str]
):
    assert ends_with(error, worker=worker) == code
    assert capsys.readouterr().err == "wherry: why\n"


@pytest.mark.parametrize(("error", "code"), KNOWN)
def test_known_error_is_found_in_a_group(
    error: errors.WherryError, code: int, capsys: pytest.CaptureFixture[str]
):
    group = BaseExceptionGroup("tasks", [errors.StoreError("x"), ExceptionGroup("more", [error])])
    assert ends_with(group, worker=True) == code
    assert capsys.readouterr().err == "wherry: why\n"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("why"),
        errors.StoreError("why"),
        ExceptionGroup("tasks", [errors.StoreUnavailable("x"), ValueError("why")]),
        OSError(5, "why"),
        EOFError("why"),
    ],
)
def test_worker_that_crashes_shows_the_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str]
):
    assert ends_with(error, worker=True) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "why" in said


@pytest.mark.parametrize(
    "error",
    [
        errors.StoreError("why"),
        errors.RequestTimeout("1-0", 3),
        errors.MessageFailed("1-0", "ValueError: x"),
        errors.RepliesTrimmed("a", "1-0", "2-0"),
        errors.BacklogFull(3, 10),
    ],
)
def test_failure_of_another_command_is_a_sentence(
    error: errors.WherryError, capsys: pytest.CaptureFixture[str]
):
    assert ends_with(error, worker=False) == 1
    assert capsys.readouterr().err == f"wherry: {error}\n"


def test_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]):
    assert ends_with(KeyboardInterrupt(), worker=True) == 0
    assert ends_with(KeyboardInterrupt(), worker=False) == 130
    assert capsys.readouterr().err == ""
