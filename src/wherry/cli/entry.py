"""The way into the command line: a health probe takes the short one, all else is typer's."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; ends the process with the command's exit code."""
    if sys.argv[1:2] == ["health"]:
        from .health import check_health, read_options

        options = read_options(sys.argv[2:])
        if options is not None:
            from ..errors import ConfigError

            try:
                is_well = check_health(options)
            except ConfigError as error:
                print(f"wherry: {error}", file=sys.stderr)
                sys.exit(2)
            sys.exit(0 if is_well else 1)
    from .app import main as run

    run()
