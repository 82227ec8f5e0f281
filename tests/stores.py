"""Every kind of store that Wherry runs on, for the conformance suite: each started by the run.

`STORES` names them and starts them. They all look alike to a test: it has a URL for each part that
somebody plays, sees all keys wherever they are, and can let servers die.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import fakeredis
import redis

from scripts.ports import free_port
from tests.clusters import Clustered, ClusterNode
from tests.sentinels import Watched
from tests.servers import Server, available_servers, server_version, wait_until
from tests.test_docs import blocks
from tests.tls import Certificates, TlsProxy, is_built_with_tls
from wherry.broker.embedded import EmbeddedStore, open_embedded
from wherry.broker.embedded_files import find_binary
from wherry.broker.memory import memory_server

NAMESPACE = "wherry"
"""Users with restricted rights have them in this one."""
REQUIRED = ("memory", "embedded", "redis-6.2", "redis-8", "valkey", "sentinel", "cluster", "acl")
"""A run that has not been on a store of each of these names, or beginnings, proves too little."""
SKIPPABLE = ("tls",)
"""So does one that has not been on these, but it may be told so."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as a store holds it.

    Attributes:
        kind: its type.
        ttl_ms: what is left of its life, -1 for ever.
        place: which of the store's servers has it.
    """

    kind: str
    ttl_ms: int
    place: int


class Place(ABC):
    """One store.

    Attributes:
        name: as the run prints it.
        version: of its servers.
        is_shared: whether other processes reach it.
        replicas: how many servers must have a message that survives `strike`.
    """

    is_shared = True
    replicas = 0

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version

    @property
    @abstractmethod
    def url(self) -> str:
        """That of somebody who may do everything."""

    def url_of(self, part: str) -> str:
        """That of a ``worker``, ``producer``, ``reader`` or ``operator``."""
        return self.url

    @abstractmethod
    def clients(self) -> Iterator[redis.Redis]:
        """A client of each server that has data, one after the other."""

    def strike(self) -> None:
        """Let a server with data die; it comes back, or another has taken its place."""
        raise NotImplementedError

    def go(self) -> None:
        """Let all servers end, as if they were stopped."""
        raise NotImplementedError

    def come(self) -> None:
        """End a `go`: the data is what it was."""
        raise NotImplementedError

    def heal(self) -> None:
        """Bring back whatever a test left dead."""
        return

    def clear(self) -> None:
        """Make it whole and empty."""
        self.heal()
        for client in self.clients():
            assert client.execute_command("FLUSHALL")

    def cut(self) -> int:
        """Break all connections of its users; how many there were."""
        broken = 0
        for client in self.clients():
            for kind in ("normal", "pubsub"):
                said: Any = client.execute_command("CLIENT KILL", "TYPE", kind, "SKIPME", "yes")
                broken += int(said)
        return broken

    def keys(self) -> Mapping[str, Key]:
        """All keys there are."""
        found: dict[str, Key] = {}
        for place, client in enumerate(self.clients()):
            for name in client.scan_iter(count=1_000):
                key: Any = name
                kind, ttl_ms = client.type(key), client.pttl(key)
                if ttl_ms != -2:
                    found[key.decode()] = Key(_text(kind), int(str(ttl_ms)), place)
        return found

    @abstractmethod
    def stop(self) -> None:
        """End it for good."""


class Memory(Place):
    """The imitation inside the process; another one for each test."""

    is_shared = False
    _fresh = count()

    def __init__(self, name: str, _: Path) -> None:
        super().__init__(name, f"fakeredis {importlib.metadata.version('fakeredis')}")
        self.clear()

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    def clients(self) -> Iterator[redis.Redis]:
        with closing(fakeredis.FakeRedis(server=self._server, protocol=2)) as client:
            yield client

    def clear(self) -> None:
        self._name = f"conformance-{next(self._fresh)}"
        self._server = memory_server(self._name)

    def stop(self) -> None:
        pass


class Embedded(Place):
    """The server of a directory; its supervisor brings it back."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name, server_version(find_binary(None)))
        self._directory = directory / "embedded"
        self._store: EmbeddedStore = open_embedded(self._directory)

    @property
    def url(self) -> str:
        return f"embedded://{self._directory}"

    def clients(self) -> Iterator[redis.Redis]:
        with redis.Redis(unix_socket_path=str(self._store.socket_path), protocol=2) as client:
            yield client

    def strike(self) -> None:
        pid = self._pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self._pid() not in (0, pid), "the embedded server is back")

    def _pid(self) -> int:
        with suppress(redis.ConnectionError):
            for client in self.clients():
                return client.info("server")["process_id"]
        return 0

    def heal(self) -> None:
        self._store.ensure_running()

    def stop(self) -> None:
        self._store.close()


class One(Place):
    """One server."""

    def __init__(self, name: str, directory: Path, *, binary: Path, args: tuple[str, ...] = ()):
        super().__init__(name, server_version(binary))
        self.server = Server(binary, directory / name, append_only=True, args=args)

    @property
    def url(self) -> str:
        return self.server.url

    def clients(self) -> Iterator[redis.Redis]:
        yield from _clients([self.server])

    def strike(self) -> None:
        self.server.kill()
        self.server.start()

    def go(self) -> None:
        self.server.stop()

    def come(self) -> None:
        self.server.start()

    def heal(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.kill()


class OverTls(One):
    """One server that asks its clients for a certificate; itself, or by a proxy before it."""

    def __init__(self, name: str, directory: Path) -> None:
        self._certificates = Certificates(directory / "certificates")
        self._proxy: TlsProxy | None = None
        binaries = available_servers()
        able = next((one for one in binaries.values() if is_built_with_tls(one)), None)
        self._port = free_port()
        super().__init__(
            name,
            directory,
            binary=able or binaries[next(iter(binaries))],
            args=tuple(self._certificates.server_args(self._port)) if able else (),
        )
        if able is None:
            self._proxy = TlsProxy(self.server.port, self._certificates.context())
            self._port = self._proxy.port
            self.version += ", TLS by a proxy"

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self._port}/0{self._certificates.options()}"

    def stop(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
        super().stop()


class Restricted(One):
    """One server, and the users of docs/redis.md with their rights and no others."""

    def __init__(self, name: str, directory: Path, *, binary: Path) -> None:
        users = acl_users()
        (directory / "users.acl").write_text(
            "".join(f"user {' '.join(words[2:])}\n" for words in users.values())
        )
        args = ("--aclfile", str(directory / "users.acl"))
        super().__init__(name, directory, binary=binary, args=args)
        self._users = users

    def url_of(self, part: str) -> str:
        assert part in self._users
        return self.url.replace("://", f"://{part}:secret@")


class BySentinels(Place):
    """A primary and its replica, watched by sentinels."""

    replicas = 1

    def __init__(self, name: str, directory: Path, *, binary: Path) -> None:
        super().__init__(name, f"{server_version(binary)}, one replica, 3 sentinels")
        self._watched = Watched(binary, directory / name)

    @property
    def url(self) -> str:
        return self._watched.url

    def clients(self) -> Iterator[redis.Redis]:
        yield from _clients([self._watched.primary])

    def strike(self) -> None:
        self._watched.fail_over()
        self._watched.wait_replica()

    def go(self) -> None:
        for server in (*self._watched.sentinels, *self._watched.servers):
            server.stop()

    def come(self) -> None:
        for server in (*self._watched.servers, *self._watched.sentinels):
            server.start()
        self._watched.wait_named(self._watched.primary)
        self._watched.wait_replica()

    def heal(self) -> None:
        if not all(one.is_running for one in (*self._watched.servers, *self._watched.sentinels)):
            self.come()

    def stop(self) -> None:
        for server in (*self._watched.sentinels, *self._watched.servers):
            server.kill()


class InCluster(Place):
    """Three primaries with a replica each."""

    replicas = 1

    def __init__(self, name: str, directory: Path, *, binary: Path) -> None:
        super().__init__(name, f"{server_version(binary)}, 3 primaries, 3 replicas")
        self.cluster = Clustered(binary, directory / name)

    @property
    def url(self) -> str:
        return self.cluster.url

    def clients(self) -> Iterator[redis.Redis]:
        yield from _clients(self.cluster.primaries())

    def strike(self) -> None:
        self.cluster.fail_over(self.cluster.owner(f"{{{NAMESPACE}}}:meta"))

    def go(self) -> None:
        for node in self.cluster.nodes:
            node.stop()

    def come(self) -> None:
        for node in self.cluster.nodes:
            node.start()
        self.cluster.wait_agreed()

    def heal(self) -> None:
        if not all(node.is_live for node in self.cluster.nodes):
            self.come()

    def stop(self) -> None:
        self.cluster.stop()


def _clients(servers: list[Server] | list[ClusterNode]) -> Iterator[redis.Redis]:
    for server in servers:
        with redis.Redis(port=server.port, password=server.password, protocol=2) as client:
            yield client


def _text(kind: Any) -> str:
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def acl_users() -> dict[str, list[str]]:
    """The users of docs/redis.md, by name: the words that make each."""
    [block] = blocks("docs/redis.md", "acl")
    found = [shlex.split(line) for line in block.splitlines()]
    return {words[2]: words for words in found}


def server_name(binary: Path) -> str:
    """``redis-6.2`` of one that says ``Redis 6.2.14``."""
    kind, version = server_version(binary).split()
    return f"{kind.lower()}-{'.'.join(version.split('.')[:2])}"


def _known() -> dict[str, Callable[[str, Path], Place]]:
    binaries = list(available_servers().values())
    first = binaries[0]
    return {
        "memory": Memory,
        "embedded": Embedded,
        **{server_name(binary): partial(One, binary=binary) for binary in reversed(binaries)},
        "sentinel": partial(BySentinels, binary=first),
        "cluster": partial(InCluster, binary=first),
        "tls": OverTls,
        "acl": partial(Restricted, binary=first),
    }


STORES = _known() if available_servers() else {}
"""Name -> what starts it, told the name and a directory for its files."""


def skipped() -> list[str]:
    """Names of stores that are not to be run on, as the environment says.

    Raises:
        ValueError: it names one without which a run proves too little.
    """
    names = [name for name in os.environ.get("WHERRY_SKIP_STORES", "").split(",") if name]
    if wrong := [name for name in names if name not in SKIPPABLE]:
        raise ValueError(
            f"WHERRY_SKIP_STORES names {', '.join(wrong)}; it may name {', '.join(SKIPPABLE)} only"
        )
    return names


def missing(ran: Iterable[str]) -> list[str]:
    """Which of the stores that a whole run must have been on, it has not."""
    wanted = [*REQUIRED, *(name for name in SKIPPABLE if name not in skipped())]
    return [one for one in wanted if not any(name.startswith(one) for name in ran)]
