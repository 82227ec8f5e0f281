"""The embedded store's supervisor: a small process that runs one server for its users.

It is run by its path with the standard library alone (``python -I -S embedded_server.py``),
so that it starts in a few hundredths of a second and stays small; it imports nothing of this
package. Everything that ends the server of an embedded store lives here.

Its law: the server runs exactly while somebody holds a *shared* lock on the users' lock file.
The supervisor waits for the *exclusive* one in the kernel and keeps it until its process is
gone. A newcomer therefore either holds his shared lock before, and the server lives on, or
waits until the old server has ended completely, and gets a fresh one. Nothing is polled.

Two more locks are inherited from the process that starts it, without a moment in which they
are free: one is held while this process lives, the other while this process or the server
does. The kernel frees them however a process ends.

The server ends with the supervisor. On Linux the kernel sends it SIGTERM when the supervisor
dies (``PR_SET_PDEATHSIG``). Elsewhere a server whose supervisor was killed runs on until the
next process opens the directory: that one shuts it down before it starts another.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

_STOP_S = 8.0
"""A server that has not ended so long after SIGTERM is killed."""
_BACKOFF_S = 0.1
_BACKOFF_MAX_S = 5.0
_STEADY_S = 30.0
"""A server that has run so long starts its backoff anew."""
_PR_SET_PDEATHSIG = 1


class Supervisor:
    """Runs the server, restarts it when it dies, ends it when its users are gone."""

    __slots__ = ("_command", "_server", "_server_lock", "_stopping", "_users_lock")

    def __init__(self, users_lock: Path, server_lock: int, command: list[str]) -> None:
        """Take the users' lock file, the descriptor the server inherits, and its command."""
        self._users_lock = users_lock
        self._server_lock = server_lock
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run the server until its users are gone or it refuses to run; return its exit code.

        A server that was killed or shut down is started again after a backoff. One that ends
        itself with an error (an unreadable file, a refused option) would do so again: then
        this process ends too, and the next user who opens the store is shown the log.
        """
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._end_with_users, name="users", daemon=True).start()
        backoff_s = _BACKOFF_S
        while True:
            started_s = time.monotonic()
            code = self._run_once()
            if self._stopping.is_set() or code > 0:
                return code
            if time.monotonic() - started_s > _STEADY_S:
                backoff_s = _BACKOFF_S
            _say(f"the server ended with {code}; starting it again in {backoff_s:g} s")
            if self._stopping.wait(backoff_s):
                return code
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    def _run_once(self) -> int:
        # From this thread alone: PR_SET_PDEATHSIG means the death of the parent's *thread*.
        server = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            # Not the other lock: it says that the supervisor lives.
            pass_fds=(self._server_lock,),
            env=os.environ | {"LC_ALL": "C"},  # an unknown locale makes newer servers refuse
        )
        self._server = server
        if self._stopping.is_set():  # it may have been set before there was a server to stop
            server.terminate()
        return server.wait()

    def _end_with_users(self) -> None:
        # Never closed: the lock shuts newcomers out until this process is gone.
        users = os.open(self._users_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(users, fcntl.LOCK_EX)
        self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        if self._server is not None:
            self._server.terminate()
        timer = threading.Timer(_STOP_S, self._kill)
        timer.daemon = True
        timer.start()

    def _kill(self) -> None:
        if self._server is not None:
            _say(f"the server has not ended {_STOP_S:g} s after SIGTERM; killing it")
            self._server.kill()


def _supervise(users_lock: str, locks: str, socket_path: str, command: list[str]) -> int:
    supervisor_lock, server_lock = (int(number) for number in locks.split(","))
    # Twice removed from its starter: no zombie is left there, whatever that process does.
    if os.fork() > 0:
        os._exit(0)
    os.umask(0o077)
    # Blocked signals are inherited from the starter; the server would never see its SIGTERM.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.ftruncate(supervisor_lock, 0)
    os.pwrite(supervisor_lock, f"{os.getpid()}\n".encode(), 0)
    if sys.platform == "linux":
        this_file = str(Path(__file__).resolve())
        command = [sys.executable, "-I", "-S", this_file, "serve", str(os.getpid()), *command]
    directory = Path(users_lock).parent
    code = Supervisor(Path(users_lock), server_lock, command).run()
    _say(f"the supervisor ends; the server ended with {code}")
    if Path(socket_path).parent != directory:
        # Nobody needs it before the next start, which cannot begin before this process is gone.
        with contextlib.suppress(OSError):
            Path(socket_path).unlink(missing_ok=True)
            Path(socket_path).parent.rmdir()
    return 0 if code <= 0 else 1


def _serve(parent: str, command: list[str]) -> None:
    """Become the server, with the kernel's promise to end it with the supervisor (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the promise was made
        sys.exit(0)
    os.execv(command[0], command)


def _say(text: str) -> None:
    # Standard error is the store's log file, which the server writes to as well.
    sys.stderr.write(f"{os.getpid()}: {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Run ``supervise USERS_LOCK FD,FD SOCKET COMMAND...`` or ``serve PARENT COMMAND...``.

    The descriptors are those of the supervisor's lock and of the server's.
    """
    if arguments[0] == "serve":
        _serve(arguments[1], arguments[2:])
    return _supervise(arguments[1], arguments[2], arguments[3], arguments[4:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
