"""The package keeps its layout, and each rule of the layout notices a tree that breaks it.

The rules and their numbers are in ``tests/floors.py`` and ``tests/shapes.py``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import floors, shapes

SOURCE = Path(__file__).resolve().parent.parent / "src" / "wherry"

# (path below src/wherry, banned function) -> why this place may use it.
TASKS_ALLOWED: dict[tuple[str, str], str] = {
    ("client/tasks.py", "create_task"): "the supervisor of a client's own tasks: a client is lazy"
    " and may live without a context, so it has no scope to nest them in",
    ("runtime/lane.py", "create_task"): "the supervisor of application tasks: an instance is asked"
    " for synchronously, outlives whoever asked, and is ended by the pool",
    ("runtime/lifespan.py", "create_task"): "one application call that lives from the entry of"
    " an async context to its exit, which ends and awaits it",
    ("testing/loop.py", "create_task"): "an event loop: it makes tasks for those who may, and is"
    " driven by plain functions, which have no task group",
}


def tasks(tree: floors.Tree) -> list[str]:
    return shapes.tasks(tree, TASKS_ALLOWED)


@pytest.mark.parametrize(
    "rule",
    [
        floors.floors,
        floors.cycles,
        floors.pure_engine,
        floors.logging_in_hooks,
        shapes.sizes,
        tasks,
        floors.plain_inits,
        floors.public_names,
    ],
)
def test_package_keeps(rule: Callable[[floors.Tree], list[str]]):
    broken = rule(floors.read_tree(SOURCE))
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


def test_every_public_name_can_be_imported():
    package = importlib.import_module(floors.PACKAGE)
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing


def plant(directory: Path, files: dict[str, str]) -> floors.Tree:
    for path, text in ({"__init__.py": "__all__ = []\n"} | files).items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return floors.read_tree(directory)


GOOD = {
    "__init__.py": '"""Top."""\nfrom .worker import Worker\n__all__ = ["Worker", "__version__"]\n'
    '__version__ = "1"\n',
    "errors.py": "from . import model\n",
    "model.py": "import re\n",
    "hooks.py": "import logging\n",
    "engine/__init__.py": "",
    "engine/pool.py": "from ..model import Entry\nfrom . import acks\n",
    "engine/acks.py": "import dataclasses\n",
    "broker/wire.py": "from wherry.errors import WherryError\nimport time\n",
    "runtime/reader.py": "from ..broker import wire\nfrom ..engine.pool import Pool\n",
    "runtime/tasks.py": "import asyncio\n"
    "async def f(self, crew: asyncio.TaskGroup, ready: asyncio.Condition):\n"
    "    async with asyncio.TaskGroup() as group:\n"
    "        group.create_task(g())\n"
    "        crew.create_task(g())\n"
    "    self._tasks = asyncio.TaskGroup()\n"
    "    self._tasks.create_task(g())\n"
    "    await ready.wait_for(bool)\n",
    "worker.py": "from .runtime.reader import Reader\nclass Worker: ...\n",
    "client/client.py": "from ..broker.wire import Wire\n",
    "testing.py": "from .worker import Worker\nfrom .client.client import Client\n",
    "cli/app.py": "from ..worker import Worker\n@app.command()\n"
    "def run(a, b, c, d, e, f, g, h, i): ...\n",
    "__main__.py": "from .cli.app import main\n",
    "config.py": "@dataclass(frozen=True)\nclass Config:\n"
    + "".join(f"    a{i}: int\n" for i in range(40)),
}


@pytest.mark.parametrize(
    "rule",
    [
        floors.floors,
        floors.cycles,
        floors.pure_engine,
        floors.logging_in_hooks,
        shapes.sizes,
        lambda tree: shapes.tasks(tree, {}),
        floors.plain_inits,
        floors.public_names,
    ],
)
def test_good_tree_passes(rule: Callable[[floors.Tree], list[str]], tmp_path: Path):
    assert rule(plant(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"util.py": ""}, "util.py: 'util' is on no floor"),
        (
            {"model.py": "from .engine import pool\n", "engine/pool.py": ""},
            "model.py:1: model (floor 0) imports wherry.engine.pool (floor 1)",
        ),
        (
            {"broker/wire.py": "import wherry.worker\n", "worker.py": ""},
            "broker/wire.py:1: broker (floor 2) imports wherry.worker (floor 4)",
        ),
        (
            {
                "broker/a.py": "import re\nif TYPE_CHECKING:\n    from ..runtime import b\n",
                "runtime/b.py": "",
            },
            "broker/a.py:3: broker (floor 2) imports wherry.runtime.b (floor 3)",
        ),
        (
            {"engine/a.py": "def f():\n    from wherry.runtime import b\n", "runtime/b.py": ""},
            "engine/a.py:2: engine (floor 1) imports wherry.runtime.b (floor 3)",
        ),
        (
            {"worker.py": "from .client.a import A\n", "client/a.py": ""},
            "worker.py:1: worker (floor 4) imports wherry.client.a (floor 4)",
        ),
        (
            {"broker/a.py": "from ..engine.b import B\n", "engine/b.py": ""},
            "broker/a.py:1: broker imports wherry.engine.b; engine and broker do not know",
        ),
        (
            {"engine/a.py": "from ..broker.b import B\n", "broker/b.py": ""},
            "engine/a.py:1: engine imports wherry.broker.b; engine and broker do not know",
        ),
        ({"cli/app.py": "from .. import Worker\n"}, "cli/app.py:1: imports from the top"),
    ],
)
def test_upward_import_is_found(files: dict[str, str], sentence: str, tmp_path: Path):
    assert_found(floors.floors(plant(tmp_path, files)), sentence)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"model.py": "from . import errors\n", "errors.py": "from . import model\n"},
            "import cycle wherry.errors -> wherry.model -> wherry.errors",
        ),
        (
            {
                "engine/a.py": "def f():\n    from .b import B\n",
                "engine/b.py": "from .c import C\n",
                "engine/c.py": "from .a import A\n",
            },
            "import cycle wherry.engine.a -> wherry.engine.b -> wherry.engine.c -> wherry.engine.a",
        ),
        (
            {"engine/__init__.py": "from .a import A\n", "engine/a.py": "from . import B\n"},
            "import cycle wherry.engine -> wherry.engine.a -> wherry.engine",
        ),
    ],
)
def test_import_cycle_is_found(files: dict[str, str], sentence: str, tmp_path: Path):
    assert_found(floors.cycles(plant(tmp_path, files)), sentence)


@pytest.mark.parametrize(
    "line",
    ["import asyncio", "from time import monotonic", "import redis.asyncio", "import re, random"],
)
def test_world_in_the_engine_is_found(line: str, tmp_path: Path):
    tree = plant(tmp_path, {"engine/pool.py": f"import re\n{line}\n", "broker/a.py": line})
    assert_found(floors.pure_engine(tree), "engine/pool.py:2: engine imports")


@pytest.mark.parametrize("line", ["import logging", "from logging import getLogger"])
def test_logging_outside_hooks_is_found(line: str, tmp_path: Path):
    tree = plant(tmp_path, {"runtime/reader.py": line, "hooks.py": line})
    assert_found(floors.logging_in_hooks(tree), "runtime/reader.py:1: imports logging")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n" * 351, "a.py: 351 lines, at most 350"),
        ("def f():\n" + "    x = 1\n" * 50, "a.py:1: f() has 51 lines, at most 50"),
        (
            "class A:\n    async def f(self):\n" + "        x = 1\n" * 50,
            "a.py:2: f() has 51 lines, at most 50",
        ),
        ("def f(a, b, c, d, *e, g, h, **i): ...\n", "a.py:1: f() has 8 parameters, at most 7"),
        (
            "class A:\n    def f(self):\n"
            + "".join(f"        self.a{i}: int = 0\n" for i in range(7))
            + "    def g(self):\n"
            + "".join(f"        self.b{i}, x = 0, 0\n" for i in range(6)),
            "a.py:1: A has 13 attributes, at most 12: a0, a1",
        ),
        (
            "@dataclass(slots=True, eq=False)\nclass A:\n"
            + "".join(f"    a{i}: int = 0\n" for i in range(13)),
            "a.py:2: A has 13 attributes",
        ),
    ],
)
def test_growth_is_found(text: str, sentence: str, tmp_path: Path):
    assert_found(shapes.sizes(plant(tmp_path, {"runtime/a.py": text})), f"runtime/{sentence}")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("asyncio.create_task(f())", "create_task"),
        ("asyncio.get_running_loop().create_task(f())", "create_task"),
        ("self._loop.create_task(f())", "create_task"),
        ("spawn = asyncio.ensure_future", "ensure_future"),
        ("await asyncio.gather(f(), g())", "gather"),
        ("await asyncio.shield(f())", "shield"),
        ("await asyncio.wait_for(f(), 1)", "wait_for"),
        ("from asyncio import wait_for as until", "wait_for"),
    ],
)
def test_task_outside_a_group_is_found(line: str, name: str, tmp_path: Path):
    text = f"import asyncio\nasync def h(self):\n    {line}\n"
    tree = plant(tmp_path, {"runtime/a.py": text})
    assert_found(shapes.tasks(tree, {}), f"runtime/a.py:3: {name} outside a TaskGroup")
    assert shapes.tasks(tree, {("runtime/a.py", name): "a reason"}) == []


def test_exception_that_is_not_needed_any_more_is_found(tmp_path: Path):
    tree = plant(tmp_path, {"runtime/a.py": ""})
    found = shapes.tasks(tree, {("runtime/a.py", "gather"): "a reason"})
    assert_found(found, "runtime/a.py: gather is in TASKS_ALLOWED but not used")


@pytest.mark.parametrize(
    "text",
    [
        "def f(): ...\n",
        "class A: ...\n",
        "LIMIT = 3\n",
        "if True:\n    import re\n",
        "__all__ = [n for n in ()]\n",
        "try:\n    import uvloop\nexcept ImportError:\n    pass\n",
    ],
)
def test_logic_in_init_is_found(text: str, tmp_path: Path):
    tree = plant(tmp_path, {"engine/__init__.py": '"""Law."""\nimport re\n' + text})
    assert_found(floors.plain_inits(tree), "engine/__init__.py:3: an __init__.py holds imports")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("from .worker import Worker\n", "__init__.py: no __all__"),
        (
            "from .worker import Worker, Other\n__all__ = ['Worker']\n",
            "__init__.py: __all__ does not list Other",
        ),
        ("__all__ = ['Worker']\n", "__init__.py: __all__ lists Worker, not imported"),
        (
            "from .worker import Worker\n__all__ = ['Worker', 'Worker']\n",
            "__init__.py: __all__ lists a name twice",
        ),
    ],
)
def test_wrong_public_names_are_found(text: str, sentence: str, tmp_path: Path):
    assert_found(floors.public_names(plant(tmp_path, {"__init__.py": text})), sentence)


def assert_found(found: list[str], sentence: str) -> None:
    assert len(found) == 1, found
    assert found[0].startswith(sentence)
