"""Screen: a terminal that is drawn on in place, and left as it was found."""

from __future__ import annotations

from collections.abc import Sequence

# The alternate screen without a cursor, where a line that is too long does not go on in the next:
# what was there before comes back when it is left.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def enter() -> None:
    """Begin to draw."""
    print(_ENTER, end="", flush=True)


def leave() -> None:
    """Bring back what was there before."""
    print(_LEAVE, end="", flush=True)


def draw(lines: Sequence[str]) -> None:
    """Show these lines, not more than the terminal has, in place of what is there."""
    # What was there is wiped before a line is written: behind one that is as wide as the terminal
    # the cursor stands on the last letter, which would be wiped with the rest.
    wiped = [f"{_REST_OF_LINE}{line}" for line in lines[:-1]]
    wiped += [f"{_REST_OF_SCREEN}{line}" for line in lines[-1:]]
    print(_HOME + "\n".join(wiped), end="", flush=True)
