"""The tests that docs/testing.md shows, run as it shows them."""

from __future__ import annotations

import importlib
import re
import sys
import unittest
from pathlib import Path
from typing import TypeGuard

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
FILE = re.compile(r"<!-- file: (\S+)\.py -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = dict(FILE.findall(PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("test_")])
def test_file_of_the_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    for module_name in ("shop", name):
        monkeypatch.delitem(sys.modules, module_name, raising=False)
        (tmp_path / f"{module_name}.py").write_text(FILES[module_name], encoding="utf-8")
    names = vars(importlib.import_module(name))
    for module_name in ("shop", name):
        sys.modules.pop(module_name, None)
    tests = [one for found, one in names.items() if found.startswith("test_")]
    cases = [one for one in names.values() if _is_case(one)]
    for test in tests:
        test()
    for case in cases:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        assert result.testsRun
        assert result.wasSuccessful(), result.failures + result.errors
    assert tests or cases


def test_every_python_block_of_the_page_is_a_file():
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(FILES)


def _is_case(found: object) -> TypeGuard[type[unittest.TestCase]]:
    return isinstance(found, type) and issubclass(found, unittest.TestCase)
