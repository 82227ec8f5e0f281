"""A run of the conformance suite that was not on all stores fails, and says on which it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores import REQUIRED, missing

ROOT = Path(__file__).resolve().parent.parent
# The suite is another one, and its stores are all in memory.
CODE = """
import sys, pytest
from pathlib import Path
from tests import stores, stores_plugin
directory, names = Path(sys.argv[1]), sys.argv[2].split()
stores_plugin.SUITE = directory
stores.STORES.clear()
stores.STORES.update(dict.fromkeys(names, stores.Memory))
sys.exit(pytest.main(["--rootdir", str(directory), "-p", "no:cacheprovider",
    "-p", "tests.stores_plugin", *sys.argv[3:]]))
"""
SUITE = """
import pytest
def test_one(place): assert place.clear() is None
@pytest.mark.without("memory", why="a reason")
def test_two(place): assert place.name != "memory"
"""


def run(
    directory: Path, names: str, *arguments: str, skipping: str = ""
) -> subprocess.CompletedProcess[str]:
    suite = directory / "suite"
    suite.mkdir(exist_ok=True)
    (suite / "test_suite.py").write_text(SUITE)
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", CODE, str(suite), names, *(arguments or [str(suite)])],
        cwd=suite,
        env=os.environ | variables | {"WHERRY_SKIP_STORES": skipping},
        capture_output=True,
        text=True,
        check=False,
    )


ALL = " ".join([*REQUIRED, "tls"])


def test_run_on_all_stores_succeeds_and_names_them(tmp_path: Path):
    done = run(tmp_path, ALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  embedded (fakeredis" in done.stdout
    assert "): 2 tests" in done.stdout


def test_run_that_was_not_on_a_store_fails(tmp_path: Path):
    done = run(tmp_path, ALL.replace("sentinel", ""))
    assert done.returncode == 1
    assert "did not run on sentinel" in done.stdout


@pytest.mark.parametrize("name", [*REQUIRED, "tls"])
def test_every_store_is_missed(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.delenv("WHERRY_SKIP_STORES", raising=False)
    ran = [f"{one} (of some version)" for one in ALL.split()]
    assert missing(ran) == []
    assert missing([one for one in ran if not one.startswith(name)]) == [name]


def test_tls_may_be_skipped_by_name_and_nothing_else(tmp_path: Path):
    done = run(tmp_path, ALL, skipping="tls")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not on tls: WHERRY_SKIP_STORES names it" in done.stdout
    assert "  tls (" not in done.stdout
    done = run(tmp_path, ALL, skipping="tls,embedded")
    assert done.returncode == 4
    assert "WHERRY_SKIP_STORES names embedded; it may name tls only" in done.stderr


def test_part_of_the_suite_may_run_on_a_part_of_the_stores(tmp_path: Path):
    done = run(tmp_path, "memory", "-k", "one")
    assert done.returncode == 0, done.stdout + done.stderr
