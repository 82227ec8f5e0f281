"""Logs of a command, on stderr: colours for people, JSON lines for machines.

What is logged is decided in `wherry.hooks`; here stands only how it looks. A line about a message
that belongs to a trace has the trace's id, under the key ``trace``.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO

from ..tracing import TRACE_ID, find_tracer

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STYLES = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "bold red"}


class PlainFormatter(logging.Formatter):
    """``12:00:01 INFO    worker ready  worker=a partition=3``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, with the traceback behind it if there is one."""
        line = f"{_clock_of(record)} {record.levelname:<7} {record.getMessage()}"
        if data := _pairs_of(record):
            line += f"  {data}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``event``, then the data, then ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; line breaks of a traceback are escaped."""
        now = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        for key, value in _data_of(record).items():
            fields.setdefault(key, value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = f"{type(error).__name__}: {error}"
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


class TraceFilter(logging.Filter):
    """Gives each record the attribute ``trace``: of the message that is being handled, or ""."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        if not hasattr(record, "trace"):
            record.trace = TRACE_ID.get()
        return True


def configure_logs(level: str, *, json_lines: bool) -> None:
    """Send the logger ``wherry`` to stderr.

    Call it again after the application was imported: ``logging.config.dictConfig`` switches
    off all loggers that it does not name.

    Args:
        level: debug, info, warning or error.
        json_lines: JSON instead of lines for people, which have colours on a terminal.
    """
    logger = logging.getLogger("wherry")
    logger.disabled = False
    logger.setLevel(level.upper())
    logger.propagate = False
    for old in [one for one in logger.handlers if isinstance(one, _OwnHandler)]:
        logger.removeHandler(old)
    has_colours = not json_lines and sys.stderr.isatty() and find_spec("rich") is not None
    handler = _TerminalHandler(sys.stderr) if has_colours else _OwnHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else PlainFormatter())
    logger.addHandler(handler)


def mark_where_traced() -> None:
    """Where there is a tracer, let records of the application's own loggers have a ``trace``, too.

    Call it once the application has set up its logging; handlers that have it are left alone.
    """
    if find_tracer() is None:
        return
    for handler in logging.getLogger().handlers:
        if not any(isinstance(one, TraceFilter) for one in handler.filters):
            handler.addFilter(TraceFilter())


class _OwnHandler(logging.StreamHandler[TextIO]):
    """Told apart from handlers of the application's own logging settings."""


class _TerminalHandler(_OwnHandler):
    """The plain lines in colours; rich knows what the terminal can show, and ``NO_COLOR``."""

    def __init__(self, stream: TextIO) -> None:
        """Write to a terminal."""
        super().__init__(stream)
        self._console: Console | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        from rich.console import Console
        from rich.text import Text

        try:
            if self._console is None:
                self._console = Console(file=self.stream, soft_wrap=True, highlight=False)
            line = Text.assemble(
                (_clock_of(record), "dim"),
                " ",
                (f"{record.levelname:<7}", _STYLES.get(record.levelname, "")),
                " ",
                record.getMessage(),
            )
            if data := _pairs_of(record):
                line.append(f"  {data}", "dim")
            self._console.print(line)
            if record.exc_info and self.formatter is not None:
                self._console.print(Text(self.formatter.formatException(record.exc_info)))
        except Exception:  # noqa: BLE001 - as in `logging.StreamHandler.emit`
            self.handleError(record)


def _clock_of(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC).astimezone():%H:%M:%S}"


def _pairs_of(record: logging.LogRecord) -> str:
    return " ".join(f"{key}={value}" for key, value in _data_of(record).items())


def _data_of(record: logging.LogRecord) -> dict[str, object]:
    data: dict[str, object] = {k: v for k, v in vars(record).items() if k not in _PLAIN}
    if trace_id := data.pop("trace", None) or TRACE_ID.get():
        data["trace"] = trace_id
    return data
