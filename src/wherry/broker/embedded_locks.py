"""File locks of the embedded store that a forked child does not inherit.

A lock of ``flock(2)`` belongs to the *open file description*: a forked child shares it, would
hold it for as long as it lives, and would free it for its parent by unlocking. So every lock
is one description of its own, is freed by closing it and never by unlocking, and a forked
child closes all that it inherited before any other code of it runs. What another thread opens
meanwhile is not missed: a fork waits for the guard. The kernel frees a lock when its process
ends, by SIGKILL too.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from ..errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

_POLL_S = 0.01

# Re-entrant: a signal handler may close a store while its thread is in here.
_guard = threading.RLock()
_open_locks: set[FileLock] = set()


class FileLock:
    """One lock on one file, held from `take` to `close`, by this process alone."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path) -> None:
        """Open (and if need be create, mode 0600) the lock file; nothing is locked yet.

        Raises:
            StoreRefused: the file cannot be opened.
        """
        self._path = path
        self._descriptor = -1
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with _guard:
            try:
                self._descriptor = os.open(path, flags, 0o600)
            except OSError as error:
                raise StoreRefused(f"lock file of the embedded store: {error}") from error
            _open_locks.add(self)

    @property
    def is_open(self) -> bool:
        """False after `close`, and in a forked child."""
        return self._descriptor >= 0

    def fileno(self) -> int:
        """Return the descriptor, to hand the lock to a child process."""
        return self._descriptor

    def try_take(self, *, shared: bool = False) -> bool:
        """Take the lock if nobody holds one that excludes it; False otherwise.

        Raises:
            StoreUnavailable: the file system has no locks.
        """
        import fcntl  # absent on Windows, where this module is still imported

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(
                f"{self._path} cannot be locked ({error}); "
                "put the embedded store on a local file system"
            ) from error
        return True

    def take(self, until_s: float, *, shared: bool = False) -> bool:
        """Take the lock, waiting for it up to an instant of the monotonic clock.

        Returns:
            False if somebody else still held it then.

        Raises:
            StoreUnavailable: the file system has no locks.
        """
        while not self.try_take(shared=shared):
            if time.monotonic() >= until_s:
                return False
            time.sleep(_POLL_S)  # flock knows no deadline
        return True

    def close(self) -> None:
        """Free the lock (unless a child process was handed it); again: no effect."""
        with _guard:
            if self.is_open:
                os.close(self._descriptor)
                self._descriptor = -1
                _open_locks.discard(self)


def _close_inherited() -> None:
    try:
        for lock in list(_open_locks):
            lock.close()
    finally:
        _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_close_inherited
    )
