"""Which source a setting comes from, and what is said of a bad one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from wherry.cli.settings import (
    Settings,
    UnknownVariable,
    Value,
    choose_store,
    read_settings,
    variable_of,
)
from wherry.config import Config
from wherry.errors import ConfigError


def read(
    directory: Path,
    *,
    flags: dict[str, Value | None] | None = None,
    assignments: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
    pyproject: str | None = None,
) -> Settings:
    if pyproject is not None:
        (directory / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    return read_settings(flags or {}, assignments, environ=environ or {}, directory=directory)


def test_each_source_beats_the_next(tmp_path: Path):
    pyproject = "[tool.wherry]\nmax_attempts = 2\nconcurrency = 2\nin_flight = 2000\n"
    settings = read(
        tmp_path,
        flags={"max_attempts": 4, "concurrency": None},
        environ={"WHERRY_MAX_ATTEMPTS": "3", "WHERRY_CONCURRENCY": "3"},
        pyproject=pyproject,
    )
    config = settings.config
    assert (config.max_attempts, config.concurrency, config.in_flight) == (4, 3, 2000)
    assert config.scope_waiting == Config().scope_waiting


def test_nothing_set_gives_the_defaults(tmp_path: Path):
    assert read(tmp_path, pyproject="[project]\nname = 'x'\n") == Settings(config=Config())


def as_text(value: object) -> str:
    return {None: "16", True: "1", False: "0"}.get(value, str(value))  # type: ignore[call-overload]


@pytest.mark.parametrize("name", [one.name for one in fields(Config)])
def test_every_config_field_has_a_variable_and_an_assignment(name: str, tmp_path: Path):
    wanted = {"end_event": "bye", "durable_state": "1"}.get(name, as_text(getattr(Config(), name)))
    by_variable = read(tmp_path, environ={variable_of(name): wanted}).config
    by_assignment = read(tmp_path, assignments=(f"{name}={wanted}",)).config
    assert by_variable == by_assignment
    default = getattr(Config(), name)
    expected = type(default)(wanted) if isinstance(default, int | float | str) else int(wanted)
    assert getattr(by_variable, name) == (True if name == "durable_state" else expected)


def test_nearest_pyproject_is_found_upwards(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text("[tool.wherry]\nnamespace = 'outer'\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert read(inner).config.namespace == "outer"
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert read(inner).config.namespace == "wherry"


def test_pyproject_holds_settings_of_the_command_line_too(tmp_path: Path):
    settings = read(
        tmp_path,
        pyproject="[tool.wherry]\nurl = 'redis://h:1/0'\nembedded = false\napp = 'a:b'\n"
        "app_dir = './src'\nembedded_binary = 'bin/valkey-server'\nlog_level = 'debug'\n"
        "lease_s = 9\n",
    )
    assert (settings.url, settings.embedded, settings.app) == ("redis://h:1/0", False, "a:b")
    assert settings.app_dir == str(tmp_path / "src")
    assert settings.embedded_binary == str(tmp_path / "bin" / "valkey-server")
    assert settings.log_level == "debug"
    assert settings.config.lease_s == 9.0


def test_empty_variable_counts_as_unset(tmp_path: Path):
    settings = read(tmp_path, environ={"WHERRY_URL": "", "WHERRY_PARTITIONS": " "})
    assert settings == Settings(config=Config())


def test_unknown_variable_is_named_with_the_nearest(tmp_path: Path):
    environ = {"WHERRY_LEAS_S": "3", "WHERRY_QQQQQQQ": "1", "OTHER_LEASE": "1"}
    assert read(tmp_path, environ=environ).unknown == (
        UnknownVariable("WHERRY_LEAS_S", "WHERRY_LEASE_S"),
        UnknownVariable("WHERRY_QQQQQQQ", ""),
    )


@pytest.mark.parametrize("service", ["WHERRY", "WHERRY_REDIS", "WHERRY_2"])
@pytest.mark.parametrize(
    "link",
    [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_METRICS",
        "PORT",
        "PORT_6379_TCP",
        "PORT_6379_TCP_PROTO",
        "PORT_6379_TCP_PORT",
        "PORT_53_UDP_ADDR",
    ],
)
def test_service_links_of_kubernetes_are_not_unknown(service: str, link: str, tmp_path: Path):
    assert read(tmp_path, environ={f"{service}_{link}": "tcp://10.0.0.1:1"}).unknown == ()


@pytest.mark.parametrize("almost", ["WHERRY_PORTS", "WHERRY_SERVICE", "WHERRY_PORT_X_TCP"])
def test_what_only_resembles_a_service_link_is_unknown(almost: str, tmp_path: Path):
    assert [one.name for one in read(tmp_path, environ={almost: "1"}).unknown] == [almost]


@pytest.mark.parametrize(
    ("environ", "sentences"),
    [
        ({"WHERRY_MAX_APPLICATIONS": "many"}, ["WHERRY_MAX_APPLICATIONS='many'", "whole number"]),
        ({"WHERRY_MAX_APPLICATIONS": "1.5"}, ["WHERRY_MAX_APPLICATIONS='1.5'", "whole number"]),
        ({"WHERRY_LEASE_S": "6s"}, ["WHERRY_LEASE_S='6s'", "a number"]),
        ({"WHERRY_STATE_TTL_S": "nan"}, ["WHERRY_STATE_TTL_S='nan'", "a number"]),
        ({"WHERRY_IDLE_TIMEOUT_S": "inf"}, ["WHERRY_IDLE_TIMEOUT_S='inf'", "a number"]),
        ({"WHERRY_DURABLE_STATE": "maybe"}, ["WHERRY_DURABLE_STATE='maybe'", "write 1 or 0"]),
        ({"WHERRY_EMBEDDED": "2"}, ["WHERRY_EMBEDDED='2'", "write 1 or 0"]),
        ({"WHERRY_LIFESPAN": "yes"}, ["WHERRY_LIFESPAN='yes'", "auto, on, off"]),
        ({"WHERRY_LOG_LEVEL": "loud"}, ["WHERRY_LOG_LEVEL='loud'", "debug, info"]),
        ({"WHERRY_LOOP": "trio"}, ["WHERRY_LOOP='trio'", "auto, asyncio, uvloop"]),
        ({"WHERRY_BACKLOG": "0"}, ["backlog is 0", "set by WHERRY_BACKLOG = 0"]),
        ({"WHERRY_PARTITIONS": "5000"}, ["partitions is 5000", "set by WHERRY_PARTITIONS"]),
        ({"WHERRY_NAMESPACE": "a b"}, ["namespace 'a b'", "set by WHERRY_NAMESPACE"]),
        ({"WHERRY_BEAT_S": "3"}, ["beat_s is 3", "set by WHERRY_BEAT_S = 3.0)"]),
    ],
)
def test_bad_variable_is_named(environ: dict[str, str], sentences: list[str], tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, environ=environ)
    for sentence in sentences:
        assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("table", "sentences"),
    [
        ("max_application = 3", ["'max_application' is not", "did you mean 'max_applications'?"]),
        ("max-applications = 3", ["did you mean 'max_applications'?"]),
        ("max_applications = '3'", ["max_applications in [tool.wherry]", "is '3'", "whole number"]),
        ("max_applications = true", ["is True", "whole number"]),
        ("lease_s = true", ["is True", "a number"]),
        ("lease_s = nan", ["is nan", "a number"]),
        ("durable_state = 1", ["is 1", "true or false"]),
        ("url = 6379", ["is 6379", "text"]),
        ("lease_s = 0.1\nbeat_s = 0.01", ["lease_s is 0.1", "set by lease_s in [tool.wherry]"]),
        ("lease_s = ", ["cannot be read"]),
    ],
)
def test_bad_line_of_pyproject_is_named(table: str, sentences: list[str], tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, pyproject=f"[tool.wherry]\n{table}\n")
    for sentence in [*sentences, str(tmp_path / "pyproject.toml")]:
        assert sentence in str(raised.value)


def test_tool_wherry_must_be_a_table(tmp_path: Path):
    for text in ("tool = 3", "[tool]\nwherry = 3"):
        with pytest.raises(ConfigError, match="must be a table"):
            read(tmp_path, pyproject=text)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("lease_s", "write --set NAME=VALUE"),
        ("leases=3", "did you mean 'lease_s'?"),
        ("lease_s=x", "--set lease_s='x': lease_s must be a number"),
        ("lease_s=0.1", "set by --set lease_s = 0.1"),
        ("max_attempts=3", "given twice, also by --max-attempts"),
    ],
)
def test_bad_assignment_is_named(assignment: str, sentence: str, tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, flags={"max_attempts": 2}, assignments=(assignment,))
    assert sentence in str(raised.value)


def test_bad_flag_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"set by --lease = 0\.1"):
        read(tmp_path, flags={"lease_s": 0.1})


def settings_of(*, url: str = "", embedded: bool = True) -> Settings:
    return Settings(config=Config(), url=url, embedded=embedded)


def test_url_that_is_set_is_used():
    for own_process in (True, False):
        chosen = choose_store(settings_of(url="redis://h", embedded=False), own_process=own_process)
        assert chosen == "redis://h"


def test_embedded_store_stands_in_for_a_missing_url():
    assert choose_store(settings_of(), own_process=True) == "embedded://"
    assert choose_store(settings_of(), own_process=False) == "embedded://"


def test_pause_in_which_nothing_is_read_has_its_bound():
    assert Config(gather_s=1.0).gather_s == 1.0
    assert Config(gather_s=0.0).gather_s == 0.0
    with pytest.raises(ConfigError, match=r"gather_s is 1\.5; it must be at most 1: "):
        Config(gather_s=1.5)


def test_missing_url_without_the_embedded_store_is_refused():
    with pytest.raises(ConfigError, match="set WHERRY_URL=redis://"):
        choose_store(settings_of(embedded=False), own_process=True)


def test_memory_store_can_only_be_used_by_the_process_that_holds_it():
    settings = settings_of(url="memory://x")
    assert choose_store(settings, own_process=True) == "memory://x"
    with pytest.raises(ConfigError, match=r"one process.*wherry\[server\]"):
        choose_store(settings, own_process=False)
