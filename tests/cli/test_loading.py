"""The application is found, or the message says which of many mistakes it is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.cli.loading import load_application
from wherry.errors import ApplicationError, StartupFailed

_numbers = itertools.count()

ASGI3 = "async def app(scope, receive, send): ...\n"


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """What a test imports is forgotten after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("tried"):
            del sys.modules[name]


def load(directory: Path, source: str, attribute: str = "app", *, factory: bool = False) -> object:
    name = f"tried_{next(_numbers)}"
    (directory / f"{name}.py").write_text(source, encoding="utf-8")
    return load_application(f"{name}:{attribute}", app_dir=str(directory), factory=factory)


@pytest.mark.parametrize(
    ("source", "attribute", "factory"),
    [
        (ASGI3, "app", False),
        ("class A:\n    async def app(self, scope, receive, send): ...\na = A()\n", "a.app", False),
        ("def app(scope):\n    async def run(receive, send): ...\n    return run\n", "app", False),
        ("class app:\n    def __init__(self, scope): ...\n", "app", False),
        ("class A:\n    async def __call__(self, s, r, e): ...\napp = A()\n", "app", False),
        ("async def app(*args): ...\n", "app", False),
        (ASGI3 + "def make(): return app\n", "make", True),
        (ASGI3 + "def make(debug=False): return app\n", "make", True),
        ("class A:\n    async def __call__(self, scope, receive, send): ...\n", "A", True),
    ],
)
def test_application_is_found(source: str, attribute: str, factory: bool, tmp_path: Path):
    assert callable(load(tmp_path, source, attribute, factory=factory))


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        ("flights", "names no attribute; write MODULE:ATTRIBUTE"),
        ("flights/app.py:app", "write it as a module: flights.app:app"),
        ("./app.py", "write it as a module: app:app"),
        ("flights:", "is not an application string"),
        (":app", "is not an application string"),
        ("fli ghts:app", "is not an application string"),
        ("a:b:c", "is not an application string"),
    ],
)
def test_malformed_string(app: str, sentence: str, tmp_path: Path):
    with pytest.raises(ApplicationError) as raised:
        load_application(app, app_dir=str(tmp_path), factory=False)
    assert sentence in str(raised.value)


def test_missing_directory(tmp_path: Path):
    with pytest.raises(ApplicationError, match="no such directory"):
        load_application("a:b", app_dir=str(tmp_path / "none"), factory=False)


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        ("tried_flihgts:app", "did you mean 'tried_flights'?"),
        ("tried_pakage.inner:app", "did you mean 'tried_package.inner'?"),
        ("tried_package.iner:app", "did you mean 'tried_package.inner'?"),
        ("tried_hidden:app", "there is one in lib/: add --app-dir lib"),
        ("zzz_nowhere:app", "--app-dir says where to look"),
        ("tried_flights.app:app", "there is no module 'tried_flights.app'"),
    ],
)
def test_module_that_is_not_there(app: str, sentence: str, tmp_path: Path):
    (tmp_path / "tried_flights.py").write_text(ASGI3)
    (tmp_path / "tried_package").mkdir()
    (tmp_path / "tried_package" / "__init__.py").write_text("")
    (tmp_path / "tried_package" / "inner.py").write_text(ASGI3)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "tried_hidden.py").write_text(ASGI3)
    with pytest.raises(ApplicationError) as raised:
        load_application(app, app_dir=str(tmp_path), factory=False)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        ("x = 1\nimport nothing_here\n", ["ModuleNotFoundError", "line 2", "import nothing_here"]),
        ("def f():\n    1 / 0\nf()\n", ["ZeroDivisionError", "line 2, in f", "1 / 0"]),
        ("import json\njson.loads('{')\n", ["JSONDecodeError", "line 2", "json.loads('{')"]),
        ("def f(:\n", ["SyntaxError", ".py, line 1"]),
        ("import sys\nsys.exit('no')\n", ["SystemExit: no", "line 2"]),
    ],
)
def test_module_that_fails_is_shown_with_the_users_own_line(
    source: str, sentences: list[str], tmp_path: Path
):
    with pytest.raises(StartupFailed) as raised:
        load(tmp_path, source)
    for sentence in sentences:
        assert sentence in str(raised.value)


def test_module_that_cannot_import_itself_is_a_failure_not_a_missing_module(tmp_path: Path):
    (tmp_path / "tried_deep").mkdir()
    (tmp_path / "tried_deep" / "__init__.py").write_text("import tried_deep.gone\n")
    with pytest.raises(StartupFailed, match="line 1"):
        load_application("tried_deep.gone:app", app_dir=str(tmp_path), factory=False)


@pytest.mark.parametrize(
    ("source", "attribute", "factory", "sentence"),
    [
        (ASGI3, "ap", False, "has no attribute 'ap'; did you mean app?"),
        (ASGI3, "zzz", False, "it defines app"),
        ("x = 1\n", "zzz", False, "nothing that can be called"),
        ("class A:\n    run = 1\na = A()\n", "a.rum", False, "of type 'A' has no attribute 'rum'"),
        ("app = {}\n", "app", False, "is of type 'dict', which cannot be called"),
        ("import json as app\n", "app", False, "is the module 'json'"),
        ("def app(): ...\n", "app", False, "looks like a factory, not like an application; add"),
        ("def app(debug=False): ...\n", "app", False, "add --factory"),
        ("def app(a, b): ...\n", "app", False, "takes (a, b); an ASGI application takes"),
        (ASGI3, "app", True, "it needs (scope, receive, send); that is the application itself"),
        ("def app(): return 3\n", "app", True, "the factory tried_"),
        ("def app(a, b): ...\n", "app", True, "it needs (a, b); give them defaults"),
        ("async def app(): ...\n", "app", True, "is async"),
        ("class C:\n    def as_asgi(): ...\n", "C", False, "C.as_asgi()"),
    ],
)
def test_attribute_of_the_wrong_kind(
    source: str, attribute: str, factory: bool, sentence: str, tmp_path: Path
):
    with pytest.raises(ApplicationError) as raised:
        load(tmp_path, source, attribute, factory=factory)
    assert sentence in str(raised.value)


def test_factory_that_fails(tmp_path: Path):
    with pytest.raises(StartupFailed, match=r"(?s)KeyError: 'HOME2'.*line 2, in app"):
        load(tmp_path, "def app():\n    return {}['HOME2']\n", factory=True)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("from fastapi import FastAPI\napp = FastAPI()\n", "is a FastAPI application"),
        (
            "from starlette.applications import Starlette\napp = Starlette()\n",
            "is a Starlette application",
        ),
        (
            (
                "from starlette.applications import Starlette\n"
                "from starlette.middleware.gzip import GZipMiddleware\n"
                "app = GZipMiddleware(Starlette())\n"
            ),
            "is a Starlette application",
        ),
        (
            (
                "from django.core.handlers.asgi import ASGIHandler\n"
                "app = ASGIHandler.__new__(ASGIHandler)\n"
            ),
            "is a Django application",
        ),
        (
            (
                "class Quart:\n    async def __call__(self, s, r, e): ...\n"
                "Quart.__module__ = 'quart.app'\nclass Mine(Quart): ...\napp = Mine()\n"
            ),
            "is a Quart application",
        ),
        (
            (
                "class Litestar:\n    async def __call__(self, s, r, e): ...\n"
                "Litestar.__module__ = 'litestar.app'\napp = Litestar()\n"
            ),
            "is a Litestar application",
        ),
        (
            (
                "class Flask:\n    def __call__(self, environ, start): ...\n"
                "Flask.__module__ = 'flask.app'\napp = Flask()\n"
            ),
            "speaks WSGI",
        ),
    ],
)
def test_application_of_a_web_framework_is_refused(source: str, sentence: str, tmp_path: Path):
    with pytest.raises(ApplicationError, match=r"docs/fastapi\.md") as raised:
        load(tmp_path, source)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "source",
    [
        (
            "from fastapi import FastAPI\nclass Mine(FastAPI):\n"
            "    async def __call__(self, scope, receive, send): ...\napp = Mine()\n"
        ),
        "class FastAPI:\n    async def __call__(self, s, r, e): ...\napp = FastAPI()\n",
    ],
)
def test_own_application_that_resembles_one_is_taken(source: str, tmp_path: Path):
    assert callable(load(tmp_path, source))


def test_router_of_channels_needs_a_route_for_channel(tmp_path: Path):
    source = "from channels.routing import ProtocolTypeRouter\nasync def c(s, r, e): ...\n"
    assert callable(load(tmp_path, source + "app = ProtocolTypeRouter({'channel': c})\n"))
    with pytest.raises(ApplicationError, match="for http; add an entry"):
        load(tmp_path, source + "app = ProtocolTypeRouter({'http': c})\n")
