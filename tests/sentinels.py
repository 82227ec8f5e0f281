"""Redis Sentinel for the tests: a primary, a replica and the sentinels that watch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tests.servers import Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SERVICE = "main"


class Sentinel(Server):
    """One sentinel; it watches the service `SERVICE`."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        primary: Server,
        *,
        quorum: int,
        lines: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        self._lines = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} 600",
            f"sentinel failover-timeout {SERVICE} 6000",
            *lines,
        ]
        super().__init__(binary, directory, password=password)

    def named(self) -> int:
        """The port of the primary that it names, 0 if it does not answer."""
        try:
            answer = self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        except OSError:
            return 0
        return int(answer.split(b"\r\n")[-2]) if answer.startswith(b"*2") else 0

    def _command(self, port: int) -> list[str]:
        """Sentinels write into their configuration file; it is theirs alone."""
        path = self.directory / "sentinel.conf"
        if not path.exists():
            login = [f"requirepass {self.password}"] if self.password else []
            head = [f"port {port}", "bind 127.0.0.1", f"dir {self.directory}", *login]
            path.write_text("\n".join([*head, *self._lines]) + "\n")
        return [str(path), "--sentinel"]


class Watched:
    """A primary with a replica, watched by sentinels; all of one kind of server."""

    def __init__(
        self, binary: Path, directory: Path, *, sentinels: int = 3, args: Sequence[str] = ()
    ) -> None:
        self.servers = [
            Server(binary, directory / f"server-{number}", append_only=True, args=args)
            for number in range(2)
        ]
        primary, replica = self.servers
        replica.command("REPLICAOF", "127.0.0.1", str(primary.port))
        wait_until(lambda: is_synced(replica), "the replica has everything")
        quorum = sentinels // 2 + 1
        self.sentinels = [
            Sentinel(binary, directory / f"sentinel-{number}", primary, quorum=quorum)
            for number in range(sentinels)
        ]
        for sentinel in self.sentinels:
            wait_until(lambda one=sentinel: self._knows_all(one), "sentinels know each other", 20)

    @property
    def url(self) -> str:
        return url_of(self.sentinels)

    @property
    def primary(self) -> Server:
        """The one that most recently was named."""
        port = next(filter(None, (one.named() for one in self.sentinels)))
        return next(one for one in self.servers if one.port == port)

    @property
    def replica(self) -> Server:
        primary = self.primary
        return next(one for one in self.servers if one is not primary)

    def fail_over(self, within_s: float = 30.0) -> None:
        """Kill the primary, wait until all sentinels name the other, and start it again."""
        dead, heir = self.primary, self.replica
        dead.kill()
        self.wait_named(heir, within_s)
        dead.start()

    def wait_named(self, server: Server, within_s: float = 30.0) -> None:
        """Wait until all sentinels name a server as the primary, and it is one."""
        wait_until(
            lambda: (
                all(one.named() == server.port for one in self.sentinels if one.is_running)
                and b"master" in server.command("ROLE")
            ),
            "the sentinels name the new primary",
            within_s,
        )

    def wait_replica(self, within_s: float = 60.0) -> None:
        """Wait until the other server follows the primary, and the sentinels know."""
        wait_until(lambda: is_synced(self.replica), "the old primary follows", within_s)

    def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _knows_all(self, sentinel: Sentinel) -> bool:
        others = len(self.sentinels) - 1
        said = sentinel.command("INFO", "sentinel")
        return b"slaves=1,sentinels=%d" % (others + 1) in said


def url_of(sentinels: Sequence[Server], options: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
    return f"redis+sentinel://{hosts}/{SERVICE}{options}"


def is_synced(replica: Server) -> bool:
    try:
        return b"master_link_status:up" in replica.command("INFO", "replication")
    except OSError:
        return False
