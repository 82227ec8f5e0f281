"""Parent: the supervisor as a worker process sees it.

The two share a socket. Over it the worker says that it is ready, and asks to be replaced; its end,
without a word, means that the supervisor is gone, however that happened. Nothing else goes over it:
what a supervisor wants it says by signals, as an operator does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path

SOCKET_VARIABLE = "WHERRY_SUPERVISOR_FD"
PROBES_VARIABLE = "WHERRY_PROBES_SOCKET"
"""Set by the supervisor alone. They are no settings: a worker takes them out of its environment, so
that what it starts does not inherit them."""


class Parent:
    """The supervisor of this process.

    Attributes:
        probes_socket: where this process is to serve its probes; in a directory that is private
            to the supervisor and removed by it.
    """

    def __init__(self, channel: socket.socket, probes_socket: Path) -> None:
        """Speak over a socket."""
        self.probes_socket = probes_socket
        self._channel = channel

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Parent | None:
        """The supervisor that an environment names, which is removed from it; None without."""
        number = environ.pop(SOCKET_VARIABLE, "")
        path = environ.pop(PROBES_VARIABLE, "")
        if not number:
            return None
        os.set_inheritable(int(number), False)
        return cls(socket.socket(fileno=int(number)), Path(path))

    def say_ready(self, worker_id: str) -> None:
        """This process is a member of the fleet and hears signals."""
        self._say({"event": "ready", "worker": worker_id})

    def ask_for_replacement(self, reason: str) -> None:
        """This process goes on until another is ready, and is then told to drain."""
        self._say({"event": "recycle", "reason": reason})

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call ``on_gone`` in a thread when the supervisor is gone.

        In a thread, because it is to be heard even by a process whose event loop does not turn, or
        does not run yet.
        """

        def wait() -> None:
            with contextlib.suppress(OSError):
                while self._channel.recv(1):
                    pass
            self._remove_traces()
            on_gone()

        threading.Thread(target=wait, name="supervisor", daemon=True).start()

    def _say(self, line: dict[str, str]) -> None:
        # Whoever is gone is noticed by `watch`.
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(line).encode() + b"\n")

    def _remove_traces(self) -> None:
        """A supervisor that was killed could not remove its directory; the last child does."""
        with contextlib.suppress(OSError):
            self.probes_socket.unlink(missing_ok=True)
            self.probes_socket.parent.rmdir()
