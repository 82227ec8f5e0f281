"""Logs are lines: plain ones for people, JSON for machines, always of the logger wherry alone."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import pty
import re
from collections.abc import Iterator

import pytest

from wherry.cli.logs import TraceFilter, configure_logs
from wherry.hooks import Hooks
from wherry.tracing import TRACE_ID

LOGGER = logging.getLogger("wherry")


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    """Ours as it was, and others no more off than they were: `dictConfig` switches off all."""
    before = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    known = logging.root.manager.loggerDict.values()
    were_off = {one: one.disabled for one in known if isinstance(one, logging.Logger)}
    yield
    LOGGER.level, LOGGER.propagate, LOGGER.handlers = before
    LOGGER.setLevel(before[0])
    for one, was_off in were_off.items():
        one.disabled = was_off


def fail(hooks: Hooks) -> None:
    try:
        raise ValueError("why\nso")
    except ValueError as error:
        hooks.failed("application raised", error, scope="a b")


def test_json_lines_carry_data_and_traceback(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", json_lines=True)
    hooks = Hooks()
    hooks.life("ready", worker="w", count=3, value=b"x")
    hooks.detail("not shown at info")
    fail(hooks)
    ready, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert ready.pop("time").endswith("Z")
    assert ready == {"level": "info", "event": "ready", "worker": "w", "count": 3, "value": "b'x'"}
    assert (failed["error"], failed["scope"]) == ("ValueError: why\nso", "a b")
    assert "in fail" in failed["traceback"]


def test_line_within_a_trace_has_its_id(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", json_lines=True)
    Hooks().life("one", entry="1-0")
    before = TRACE_ID.set("abc")
    Hooks().life("two", entry="1-0")
    Hooks().life("three", entry="1-0", trace="def")
    TRACE_ID.reset(before)
    one, two, three = map(json.loads, capsys.readouterr().err.splitlines())
    assert "trace" not in one
    assert [*two] == ["time", "level", "event", "entry", "trace"]
    assert (two["trace"], three["trace"]) == ("abc", "def")


def test_filter_marks_records_that_have_no_trace_of_their_own():
    record, own = (logging.makeLogRecord(one) for one in ({}, {"trace": "def"}))
    before = TRACE_ID.set("abc")
    assert TraceFilter().filter(record)
    assert TraceFilter().filter(own)
    TRACE_ID.reset(before)
    assert [vars(one)["trace"] for one in (record, own)] == ["abc", "def"]


@pytest.mark.parametrize(("variable", "has_colours"), [("", True), ("NO_COLOR", False)])
def test_lines_on_a_terminal_are_the_plain_ones_in_colours(
    monkeypatch: pytest.MonkeyPatch, variable: str, has_colours: bool
):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        configure_logs("debug", json_lines=False)
        hooks = Hooks()
        hooks.detail("ready [red]", worker="w" * 200, scope="[bold]a")
        fail(hooks)
        terminal.flush()
        raw = b""
        while not raw.rstrip().endswith(b"so"):  # the last line of the traceback
            raw += os.read(ours, 65_536)
        shown = raw.decode().replace("\r\n", "\n")
        monkeypatch.undo()
    os.close(ours)
    assert ("\x1b[33" in shown or "\x1b[1;31m" in shown) is has_colours
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert plain[0].endswith(f" DEBUG   ready [red]  worker={'w' * 200} scope=[bold]a")
    assert plain[1].endswith(" ERROR   application raised  scope=a b")
    assert plain[2] == "Traceback (most recent call last):"
    assert plain[-2:] == ["ValueError: why", "so"]


def test_data_cannot_replace_a_key_of_the_line(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", json_lines=True)
    Hooks().life("ready", level=3, time=4)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"]) == ("info", "ready")


def test_plain_lines_show_data_and_traceback(capsys: pytest.CaptureFixture[str]):
    configure_logs("debug", json_lines=False)
    hooks = Hooks()
    hooks.detail("ready", worker="w", count=3)
    fail(hooks)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(" DEBUG   ready  worker=w count=3")
    assert lines[1].endswith(" ERROR   application raised  scope=a b")
    assert lines[2].startswith("Traceback")


def test_applications_logging_settings_do_not_silence_wherry(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", json_lines=True)
    logging.config.dictConfig({"version": 1})  # switches off every logger it does not name
    Hooks().life("lost")
    configure_logs("info", json_lines=True)
    Hooks().life("ready")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["ready"]
