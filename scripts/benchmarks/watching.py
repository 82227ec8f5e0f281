"""Watching: which commands a server carried out, and when by its own clock (MONITOR).

It slows the server a little and the workers not at all; what they do is seen as it is, without a
line of theirs being changed.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import redis

from wherry.broker.wire import Keys
from wherry.config import Config

from .store import BenchServer

_LINE = re.compile(r"(\d+\.\d+) \[\d+ (\S+)\] (.*)")
_INPUT = re.compile(r'"\{' + re.escape(Config().namespace) + r':(\d+)\}:in"')
_SCRIPT = "lua"
_RELEASED = f'"PUBLISH" "{Keys(Config().namespace).released}" '


@dataclass(slots=True)
class Seen:
    """What was seen so far.

    Attributes:
        released: (instant, partition) of each release, in Unix seconds.
        reads: (instant, address, partitions) of each blocking read.
        sent: command -> how often it was sent; what scripts call is not counted.
    """

    released: list[tuple[float, int]] = field(default_factory=lambda: [])
    reads: list[tuple[float, str, frozenset[int]]] = field(default_factory=lambda: [])
    sent: Counter[str] = field(default_factory=lambda: Counter())

    def take(self, line: str) -> None:
        """Note a line of MONITOR, if it says anything here."""
        parts = _LINE.match(line)
        if parts is None:
            return
        at_s, address, command = float(parts[1]), parts[2], parts[3]
        if address != _SCRIPT:
            self.sent[command.split('"', 2)[1].upper()] += 1
        if command.startswith('"XREAD"'):
            self.reads.append((at_s, address, frozenset(map(int, _INPUT.findall(command)))))
        elif command.startswith(_RELEASED):
            partition = command.removeprefix(_RELEASED).strip('"')
            if partition.isdigit():
                self.released.append((at_s, int(partition)))

    def first_read(self, partition: int, after_s: float) -> float | None:
        """When a partition was first asked for after an instant."""
        for at_s, _, partitions in self.reads:
            if at_s > after_s and partition in partitions:
                return at_s
        return None

    def wait_for_read(self, partition: int, after_s: float, within_s: float = 10.0) -> float | None:
        """The same; waits for it, as a lease is taken a moment before its stream is read."""
        until_s = time.monotonic() + within_s
        while (read_s := self.first_read(partition, after_s)) is None:
            if time.monotonic() > until_s:
                return None
            time.sleep(0.01)
        return read_s

    def readers(self, partition: int) -> set[str]:
        """Addresses from which a partition was read."""
        return {address for _, address, partitions in self.reads if partition in partitions}


@contextlib.contextmanager
def watching(server: BenchServer) -> Iterator[Seen]:
    """Watch until the end of the block; then everything up to there was seen."""
    seen = Seen()
    host, port = (
        server.client.get_connection_kwargs()["host"],
        server.client.get_connection_kwargs()["port"],
    )
    with (
        redis.Redis(host=host, port=port, protocol=2, socket_timeout=None) as client,
        client.monitor() as monitor,
    ):
        is_over = threading.Event()

        def listen() -> None:
            while True:
                line = monitor.connection.read_response(disable_decoding=True)
                text = line.decode("utf-8", "replace")
                if '"ECHO" "watched"' in text:
                    is_over.set()
                    return
                seen.take(text)

        threading.Thread(target=listen, daemon=True).start()
        try:
            yield seen
        finally:
            server.client.execute_command("ECHO", "watched")
            is_over.wait(30.0)
