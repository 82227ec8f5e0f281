"""Ports for the servers that tests, fault runs and benchmarks start."""

from __future__ import annotations

import secrets
import socket

FIRST, COUNT = 20_000, 12_000
ATTEMPTS = 100


def free_port() -> int:
    """A loopback port that nobody uses, and that only another call of this could give away.

    From 32768 on (Linux; others from 49152) the system gives ports to outgoing connections and to
    whoever asks for any: one of these can be gone before the server starts, or while it is down.

    Raises:
        OSError: many were tried, and none is free.
    """
    for _ in range(ATTEMPTS):
        port = FIRST + secrets.randbelow(COUNT)  # `random` may be seeded alike in two processes
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port among {ATTEMPTS} from {FIRST} to {FIRST + COUNT - 1}")
