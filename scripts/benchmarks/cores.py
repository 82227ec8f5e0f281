"""Cores: the server on one, what is measured on another.

On a machine that has other things to do the system often puts a client and its server on the same
core, where they take turns, and now and then it does not: then the rate tells of that and of little
else. Both sides of a comparison are placed alike.
"""

from __future__ import annotations

import os
from pathlib import Path

from .clustered import BenchCluster
from .store import BenchServer


def keep_apart(server: BenchServer | BenchCluster, pid: int) -> None:
    """Give the server, or all of a cluster, one core and a process another.

    Where the system can, and has two.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    places = [(node.pid, cores[1]) for node in server.nodes]
    for one, core in (*places, (pid, cores[0])):
        for thread in Path(f"/proc/{one}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
