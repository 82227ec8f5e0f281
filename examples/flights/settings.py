"""What ``produce`` and ``report`` are told on the command line."""

from __future__ import annotations

import argparse
import os


def client_settings(description: str | None) -> tuple[str, str]:
    """URL of the store and namespace: flag, else environment, else what ``wherry run`` uses."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=os.environ.get("WHERRY_URL") or "embedded://")
    parser.add_argument("--namespace", default=os.environ.get("WHERRY_NAMESPACE") or "wherry")
    arguments = parser.parse_args()
    return arguments.url, arguments.namespace
