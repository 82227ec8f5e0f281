"""Redis Cluster for the tests: nodes of one kind of server, with a replica of each primary.

`Clustered` forms it; what can be done to it, and seen of it, is in `scripts.clustering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from scripts.clustering import BUS, HOST, OPTIONS, Cluster, find_port
from tests.servers import Server
from tests.tls import Certificates

TIMEOUT_MS = 1_000
"""So long a node is silent before others suspect it. A failover takes one to two seconds more."""


class ClusterNode(Server):
    """One node; it keeps its data, its name and its place in the cluster when it is restarted."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        timeout_ms: int = TIMEOUT_MS,
        password: str | None = None,
        certificates: Certificates | None = None,
        args: Sequence[str] = (),
    ) -> None:
        self._is_paused = False
        options = [*OPTIONS, "--cluster-node-timeout", str(timeout_ms), *args]
        self.tls_port = 0
        if certificates is not None:
            self.tls_port = find_port()
            options += certificates.server_args(self.tls_port)
            options += ["--tls-cluster", "yes", "--tls-replication", "yes"]
        if password is not None:
            options += ["--masterauth", password]
        super().__init__(binary, directory, append_only=True, password=password, args=options)

    @property
    def is_live(self) -> bool:
        return self.is_running and not self._is_paused

    def pause(self) -> None:
        super().pause()
        self._is_paused = True

    def resume(self) -> None:
        super().resume()
        self._is_paused = False

    def start(self) -> None:
        super().start()
        self._is_paused = False

    def _find_port(self) -> int:
        return find_port()


class Clustered(Cluster[ClusterNode]):
    """A cluster of the test's own, agreed upon when it has been made."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        primaries: int = 3,
        replicas: int = 1,
        timeout_ms: int = TIMEOUT_MS,
        password: str | None = None,
        certificates: Certificates | None = None,
        args: Sequence[str] = (),
    ) -> None:
        self.password = password
        self._certificates = certificates
        started: list[ClusterNode] = []
        try:
            for number in range(primaries * (1 + replicas)):
                place = directory / f"node-{number}"
                node = ClusterNode(
                    binary,
                    place,
                    timeout_ms=timeout_ms,
                    password=password,
                    certificates=certificates,
                    args=args,
                )
                started.append(node)
            super().__init__(started)
            self.form(primaries)
        except BaseException:
            for node in started:
                node.kill()
            raise

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, user: str = "", password: str | None = None, options: str = "") -> str:
        """The URL of a user; without one, that of whoever may do everything."""
        password = self.password if password is None else password
        login = f"{user}:{password}@" if password else ""
        if self._certificates is None:
            return f"redis+cluster://{login}{self.places}{options}"
        assert not options, "they are those of the certificates"
        places = ",".join(f"{HOST}:{node.tls_port}" for node in self.nodes)
        return f"rediss+cluster://{login}{places}{self._certificates.options()}"

    def _bus_of(self, node: ClusterNode) -> int:
        return (node.tls_port or node.port) + BUS

    def command(self, *words: str) -> list[bytes]:
        """Send one command to each live node; their raw answers."""
        return [node.command(*words) for node in self.nodes if node.is_live]

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
