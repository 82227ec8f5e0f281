"""Logs of a command: plain lines for people, JSON lines for machines, both on stderr.

What is logged is decided in `wherry.hooks`; here stands only how it looks.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class PlainFormatter(logging.Formatter):
    """``12:00:01 INFO    worker ready  worker=a partition=3``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, with the traceback behind it if there is one."""
        now = datetime.fromtimestamp(record.created, UTC).astimezone()
        data = " ".join(f"{key}={value}" for key, value in _data_of(record).items())
        line = f"{now:%H:%M:%S} {record.levelname:<7} {record.getMessage()}"
        if data:
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


def configure_logs(level: str, *, json_lines: bool) -> None:
    """Send the logger ``wherry`` to stderr.

    Call it again after the application was imported: ``logging.config.dictConfig`` switches
    off all loggers that it does not name.

    Args:
        level: debug, info, warning or error.
        json_lines: JSON instead of plain lines.
    """
    logger = logging.getLogger("wherry")
    logger.disabled = False
    logger.setLevel(level.upper())
    logger.propagate = False
    for old in [one for one in logger.handlers if isinstance(one, _OwnHandler)]:
        logger.removeHandler(old)
    handler = _OwnHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else PlainFormatter())
    logger.addHandler(handler)


class _OwnHandler(logging.StreamHandler[TextIO]):
    """Told apart from handlers of the application's own logging settings."""


def _data_of(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _PLAIN}
