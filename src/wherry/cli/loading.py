"""Finding the application: ``MODULE:ATTR`` as uvicorn takes it, each mistake told apart.

What is not there or of the wrong kind is `ApplicationError` (exit code 2); what is there and
fails while it is imported or called is `StartupFailed` (exit code 3).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, cast

from ..errors import ApplicationError, StartupFailed
from ..model import Application
from ..runtime.frameworks import check_framework

_FORM = "write MODULE:ATTRIBUTE, such as flights.app:app"
_MISSING = object()


def load_application(app: str, *, app_dir: str, factory: bool) -> Application:
    """Import the application; ``app_dir`` is put before the import path.

    Args:
        app: ``module:attribute``; both may be dotted.
        app_dir: directory the module is looked for in first.
        factory: call the attribute, without arguments, to get the application.

    Raises:
        ApplicationError: malformed, not found, not an ASGI application, or a web framework's.
        StartupFailed: its module or its factory raised.
    """
    module_name, attribute = _split(app)
    directory = Path(app_dir)
    if not directory.is_dir():
        raise ApplicationError(f"--app-dir {app_dir}: there is no such directory")
    sys.path.insert(0, str(directory.resolve()))
    found = _find(_import(module_name, directory.resolve()), attribute, app)
    if not callable(found):
        raise ApplicationError(
            f"{app} is {_describe(found)}, which cannot be called; "
            "name the application itself, or a factory with --factory"
        )
    if factory:
        found = _call_factory(found, app)
    if not callable(found):
        raise ApplicationError(
            f"the factory {app} returned {_describe(found)}, which cannot be called; "
            "it must return the application"
        )
    check_framework(found, app)
    _check_arguments(found, app, from_factory=factory)
    return cast("Application", found)


def _split(app: str) -> tuple[str, str]:
    module, separator, attribute = app.partition(":")
    if module.endswith(".py") or "/" in module or "\\" in module:
        dotted = module.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        meant = f"{dotted}:{attribute or 'app'}"
        raise ApplicationError(f"{app!r} names a file; write it as a module: {meant}")
    if not separator:
        raise ApplicationError(f"{app!r} names no attribute; {_FORM}; {app}:app?")
    parts = [*module.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise ApplicationError(f"{app!r} is not an application string; {_FORM}")
    return module, attribute


def _import(name: str, directory: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        is_asked_for = name == missing or name.startswith(missing + ".")
        if is_asked_for and _last_own_frame(error.__traceback__) is None:
            raise ApplicationError(_not_found(name, missing, directory)) from error
        raise StartupFailed(_failed(f"importing module {name!r}", error)) from error
    # SystemExit too: a module that calls sys.exit() would end the worker without a word.
    except (Exception, SystemExit) as error:
        raise StartupFailed(_failed(f"importing module {name!r}", error)) from error


def _not_found(name: str, missing: str, directory: Path) -> str:
    parent, _, last = missing.rpartition(".")
    folder = directory.joinpath(*parent.split(".")) if parent else directory
    text = f"there is no module {missing!r} in {folder} or on the import path"
    near = difflib.get_close_matches(last, _modules_in(folder), n=1)
    if near:
        meant = name.replace(missing, f"{parent}.{near[0]}" if parent else near[0], 1)
        return f"{text}; did you mean {meant!r}?"
    for beside in sorted(path for path in directory.glob("*") if path.is_dir()):
        if not parent and last in _modules_in(beside) and not beside.name.startswith("."):
            return f"{text}; there is one in {beside.name}/: add --app-dir {beside.name}"
    return f"{text}; --app-dir says where to look"


def _modules_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    files = [path.stem for path in folder.glob("*.py")]
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    return sorted(files + packages)


def _find(module: ModuleType, attribute: str, app: str) -> object:
    found: object = module
    for part in attribute.split("."):
        try:
            following = getattr(found, part, _MISSING)
        except Exception as error:
            raise StartupFailed(_failed(f"looking up {app}", error)) from error
        if following is _MISSING:
            where = f"module {module.__name__!r}" if found is module else _describe(found)
            raise ApplicationError(f"{where} has no attribute {part!r}; {_offer(part, found)}")
        found = following
    return found


def _offer(wanted: str, holder: object) -> str:
    names = [name for name in dir(holder) if not name.startswith("_")]
    near = difflib.get_close_matches(wanted, names, n=3)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    own = [name for name in names if _is_own_callable(holder, name)]
    return "it defines " + ", ".join(own[:8]) if own else "it defines nothing that can be called"


def _is_own_callable(holder: object, name: str) -> bool:
    value = getattr(holder, name, None)
    module = getattr(value, "__module__", None) or type(value).__module__
    return callable(value) and module == getattr(holder, "__name__", None)


def _call_factory(factory: Any, app: str) -> object:
    required = _required_arguments(factory)
    if required:
        raise ApplicationError(
            f"--factory calls {app} without arguments, but it needs ({', '.join(required)})"
            + ("; that is the application itself: leave --factory out" if len(required) in (1, 3)
               else "; give them defaults")
        )  # fmt: skip
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise StartupFailed(_failed(f"calling the factory {app}", error)) from error
    if inspect.iscoroutine(made):
        made.close()
        raise ApplicationError(
            f"the factory {app} is async; make it a plain function and open what needs the "
            "event loop in the application's lifespan"
        )
    return made


def _check_arguments(found: Any, app: str, *, from_factory: bool) -> None:
    """Tell a factory from an application by what it can be called with."""
    if isinstance(found, type) and hasattr(found, "as_asgi"):
        raise ApplicationError(f"{app} is a Channels consumer class; make it an application "
                               f"with {found.__name__}.as_asgi()")  # fmt: skip
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # some callables written in C have none
        return
    is_open = any(one.kind is one.VAR_POSITIONAL for one in signature.parameters.values())
    if not is_open and _accepts(signature, 0):
        hint = "the factory returned a factory" if from_factory else "add --factory"
        raise ApplicationError(f"{app} can be called without arguments, so it looks like a "
                               f"factory, not like an application; {hint}")  # fmt: skip
    if not _accepts(signature, 3) and not _accepts(signature, 1):
        raise ApplicationError(
            f"{app} takes {signature}; an ASGI application takes (scope, receive, send)"
        )


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _required_arguments(found: Any) -> list[str]:
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    open_kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        one.name for one in parameters if one.default is one.empty and one.kind not in open_kinds
    ]


def _describe(value: object) -> str:
    if isinstance(value, ModuleType):
        return f"the module {value.__name__!r}"
    return f"of type {type(value).__name__!r}"


def _failed(doing: str, error: BaseException) -> str:
    text = f"the application failed while {doing}: {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # its text names file and line
        return text
    frame = _last_own_frame(error.__traceback__)
    if frame is None:
        return text
    return f"{text}\n  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}"


def _last_own_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    """The last frame that is neither Python's, nor a package's, nor ours."""
    foreign = (
        str(Path(__file__).parent.parent),
        str(Path(inspect.__file__).parent),
        "<frozen",
    )
    own = [
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith(foreign) and "site-packages" not in frame.filename
    ]
    return own[-1] if own else None
