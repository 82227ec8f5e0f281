"""The fixture of the conformance suite: a test that takes `place` runs on every store there is.

``@pytest.mark.without("memory", why=...)`` leaves out those whose names begin so, and says why. The
run prints on which stores it was, with their versions; one of the whole suite fails if it was not
on all that it should have been on (`tests.stores.REQUIRED`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stores import STORES, Place, missing, skipped
from wherry.broker.connect import Store, open_store

SUITE = Path(__file__).resolve().parent / "conformance"
_RAN = "stores that ran"
_ran: Counter[str] = Counter()


class Places:
    """The stores of one process, each started when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: dict[str, Place] = {}

    def fresh(self, name: str) -> Place:
        """Return the store of that name: whole, and empty."""
        place = self._started.get(name)
        if place is None:
            directory = self._directory / name
            directory.mkdir()
            place = self._started[name] = STORES[name](name, directory)
        place.clear()
        _ran[f"{name} ({place.version})"] += 1
        return place

    def stop(self) -> None:
        for place in self._started.values():
            place.stop()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "without(*names, why): stores that a test does not run on")
    try:
        skipped()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" not in metafunc.fixturenames or not metafunc.definition.path.is_relative_to(SUITE):
        return
    left_out = [*skipped(), *_left_out(metafunc.definition)]
    names = [name for name in STORES if not name.startswith(tuple(left_out))]
    metafunc.parametrize("place", names, indirect=True)


def _left_out(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("without"):
        assert mark.kwargs["why"]
        yield from mark.args


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    found = Places(tmp_path_factory.mktemp("stores"))
    yield found
    found.stop()


@pytest.fixture
def place(request: pytest.FixtureRequest, places: Places) -> Place:
    return places.fresh(request.param)


@pytest.fixture
def store(place: Place) -> Store:
    return open_store(place.url)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a process of pytest-xdist hand on where it was; the one that says it judges."""
    handed: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if handed is not None:
        handed[_RAN] = dict(_ran)
    elif _lacking(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _ran.update(getattr(node, "workeroutput", {}).get(_RAN, {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not _ran:
        return
    terminalreporter.write_line("conformance suite ran on:")
    for name, times in sorted(_ran.items()):
        terminalreporter.write_line(f"  {name}: {times} tests")
    for name in skipped():
        terminalreporter.write_line(f"  not on {name}: WHERRY_SKIP_STORES names it")
    if lacking := _lacking(config):
        terminalreporter.write_line(
            f"FAILED: the conformance suite did not run on {', '.join(lacking)}; install what "
            "scripts/test installs, on Python 3.11 or 3.12 for Redis 6.2",
            red=True,
        )


def _lacking(config: pytest.Config) -> list[str]:
    """Stores that a whole run has not been on; of a part of the suite nothing is asked."""
    options = config.option
    is_part = options.keyword or options.markexpr or options.deselect or options.collectonly
    is_part = is_part or config.getoption("lf", default=False)
    paths = [(config.invocation_params.dir / one.split("::")[0]).resolve() for one in config.args]
    if is_part or not any(SUITE.is_relative_to(one) for one in paths if "::" not in str(one)):
        return []
    return missing(_ran)
