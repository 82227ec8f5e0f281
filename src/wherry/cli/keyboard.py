"""Keyboard: keys are heard as they are pressed, and nothing of that outlasts the command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable, Generator
from typing import Any

from . import screen

# What an arrow sends, say: letters that stand for no keys of their own.
_SEQUENCE = re.compile(r"\x1b(?:[\[O][0-?]*[ -/]*[@-~])?")


class Keyboard:
    """The terminal of a command that draws: its keys, its size, Ctrl-Z."""

    __slots__ = ("_before", "_fd", "_on_change", "_on_key")

    def __init__(self, on_key: Callable[[str], None], on_change: Callable[[], None]) -> None:
        """Listen.

        Args:
            on_key: a key was pressed; "" if there is no keyboard any more.
            on_change: what is on the screen must be drawn anew.
        """
        self._on_key = on_key
        self._on_change = on_change
        self._fd = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    @contextlib.contextmanager
    def listening(self) -> Generator[None]:
        """Draw and listen inside; after it the terminal is as it was, however it was left."""
        loop = asyncio.get_running_loop()
        # Signals first: their default actions would end the process with the screen as it is.
        loop.add_signal_handler(signal.SIGWINCH, self._on_change)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        try:
            self._enter()
            if self._fd is not None:
                loop.add_reader(self._fd, self._read, self._fd)
            yield
        finally:
            if self._fd is not None:
                loop.remove_reader(self._fd)
            self._leave()
            loop.remove_signal_handler(signal.SIGWINCH)
            loop.remove_signal_handler(signal.SIGTSTP)

    def _read(self, fd: int) -> None:
        try:
            keys = os.read(fd, 64).decode(errors="replace")
        except OSError:  # the terminal is gone
            keys = ""
        if not keys:
            asyncio.get_running_loop().remove_reader(fd)
            self._on_key("")
        for key in _SEQUENCE.sub("", keys):
            self._on_key(key)

    def _suspend(self) -> None:
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)  # returns when the shell lets us go on
        self._enter()
        self._on_change()

    def _enter(self) -> None:
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSADRAIN)
        screen.enter()

    def _leave(self) -> None:
        # A terminal that was closed meanwhile cannot be put in order, and need not be.
        with contextlib.suppress(OSError, termios.error):
            screen.leave()
        if self._fd is not None and self._before is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
