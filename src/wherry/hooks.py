"""Hooks: the one place where Wherry reports what happens; the only module that logs.

Every method is synchronous and cheap. Messages are constant, data goes into ``extra`` with
stable keys: worker, partition, scope, entry, attempt, count, duration_s, outcome. Payloads
are never logged.
"""

from __future__ import annotations

import logging

_LOGGER = logging.getLogger("wherry")


class Hooks:
    """Reports to the logger ``wherry``; hand in another object of this shape to replace it."""

    __slots__ = ("_once",)

    def __init__(self) -> None:
        """Start with nothing said."""
        self._once: set[str] = set()

    def life(self, event: str, **data: object) -> None:
        """A step of the process's life, such as "worker ready"; INFO."""
        _LOGGER.info(event, extra=data)

    def detail(self, event: str, **data: object) -> None:
        """Something for debugging only; DEBUG."""
        if _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug(event, extra=data)

    def warn(self, event: str, **data: object) -> None:
        """Something that people should know though work goes on; WARNING."""
        _LOGGER.warning(event, extra=data)

    def warn_once(self, event: str, **data: object) -> None:
        """The same, said once for the life of this object."""
        if event not in self._once:
            self._once.add(event)
            _LOGGER.warning(event, extra=data)

    def failed(self, event: str, error: BaseException, **data: object) -> None:
        """An error with its traceback; ERROR."""
        _LOGGER.error(event, exc_info=error, extra=data)
