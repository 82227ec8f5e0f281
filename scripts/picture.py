"""A picture of a terminal for the documentation.

    tmux capture-pane -ep | python -m scripts.picture TITLE > docs/top.svg

Takes text in colours, as terminals do, and writes it as SVG that needs no font from elsewhere.
"""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console
from rich.text import Text


def draw(text: str, title: str) -> str:
    """The SVG of such a text."""
    lines = [Text.from_ansi(line) for line in text.splitlines()]
    width = max((line.cell_len for line in lines), default=80)
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", highlight=False)
    svg = console.export_svg(title=title, unique_id="picture")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    # Some programs drop the spaces that a piece of text begins with, and columns with them.
    return svg.replace("<svg ", '<svg xml:space="preserve" ', 1)


if __name__ == "__main__":
    sys.stdout.write(draw(sys.stdin.read(), sys.argv[1]))
