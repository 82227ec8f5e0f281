"""``wherry top``: one picture of the fleet on standard output, or a live one on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from dataclasses import replace

from ..broker.connect import Store
from ..errors import ConfigError
from . import screen
from .canvas import coloured, plain
from .desk import Desk
from .overview import compose
from .tables import WIDTH, forgive_letters

HEIGHT = 24
_ONCE_S = 1.0


def check_terminal(*, once: bool) -> None:
    """Refuse to draw live where that cannot be seen.

    Raises:
        ConfigError: this is no terminal.
    """
    if not once and (sys.platform == "win32" or not sys.stdout.isatty()):
        raise ConfigError("wherry top draws on a terminal, and this is none; try wherry top --once")


def show_once(store: Store, namespace: str) -> None:
    """Print one picture, of two looks a second apart: one alone knows no rates.

    Raises:
        WherryError: Redis cannot be reached, or refuses.
    """
    forgive_letters()
    asyncio.run(_print_picture(store, namespace))


def run(store: Store, namespace: str, every_s: float) -> None:
    """Draw until q, Ctrl-C or SIGTERM.

    Raises:
        WherryError: at the first look, before the screen changes; later any but an outage.
    """
    forgive_letters()
    # Ctrl-C cancels and raises the first, SIGTERM cancels.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_live(store, namespace, every_s))


async def _print_picture(store: Store, namespace: str) -> None:
    link = store.link()
    try:
        desk = Desk(store, link, namespace, 0.0)
        await desk.look()
        if desk.view.status.generation:
            await desk.ask()
            await asyncio.sleep(_ONCE_S)
            await desk.look()
        size = shutil.get_terminal_size((WIDTH, HEIGHT))
        inked = coloured if _has_colours() else plain
        print("\n".join(inked(line) for line in compose(desk.view, size.columns, size.lines)))
    finally:
        await link.aclose()


async def _live(store: Store, namespace: str, every_s: float) -> None:
    from .keyboard import Keyboard

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    link = store.link()
    try:
        desk = Desk(store, link, namespace, every_s)
        await desk.look()
        with Keyboard(desk.press, desk.changed.set).listening():
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(desk.keep_looking(), name="desk:top")
                await _draw_until_ended(desk)
                looking.cancel()
    finally:
        await link.aclose()


async def _draw_until_ended(desk: Desk) -> None:
    inked = coloured if _has_colours() else plain
    while not desk.has_ended:
        desk.changed.clear()
        # Not by COLUMNS and LINES, which stay as they are when the window does not.
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        view = replace(desk.view, keys=desk.keys)
        picture = compose(view, columns or WIDTH, lines or HEIGHT)  # a serial line says 0
        screen.draw([inked(line) for line in picture])
        await desk.changed.wait()


def _has_colours() -> bool:
    """Whether the terminal is to be told of inks: https://no-color.org."""
    is_wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return is_wanted and sys.stdout.isatty()
