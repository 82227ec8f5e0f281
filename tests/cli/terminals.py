"""Commands on a terminal of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Generator
from typing import Any

from tests.cli.commands import LIMIT_S, Project, command

# What a command that draws writes first and last.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """A command on a terminal; what it writes is kept."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self._screen, inner = pty.openpty()
        self.resize(80, 24)
        self.modes_before = self.modes
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=project.directory,
            env=project.environment(),
            stdin=inner,
            stdout=inner,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self._screen, False)
        self._written = b""

    @property
    def modes(self) -> list[Any]:
        """Echo, line editing and so on, as they are now."""
        return termios.tcgetattr(self._screen)

    @property
    def written(self) -> str:
        # An error is the end: nobody writes to it any more.
        with contextlib.suppress(OSError):
            while part := os.read(self._screen, 65_536):
                self._written += part
        return self._written.decode()

    @property
    def picture(self) -> str:
        """The letters that were drawn last."""
        return re.sub(r"\x1b\[[0-9;]*[mKJ]", "", self.written.rpartition("\x1b[H")[2])

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=LIMIT_S)
        os.close(self._screen)


@contextlib.contextmanager
def terminal(project: Project, *arguments: str) -> Generator[Terminal]:
    made = Terminal(project, *arguments)
    try:
        yield made
    finally:
        made.close()
