"""The installed version, asked of the package's metadata."""

from __future__ import annotations


def installed_version() -> str:
    """The version, or "unknown" when the source tree is run without being installed."""
    from importlib import metadata  # only here: it takes longer than the rest of --help

    try:
        return metadata.version("wherry")
    except metadata.PackageNotFoundError:
        return "unknown"
