"""Web frameworks' applications, recognised by name: they speak http, not ``channel``.

Nothing is imported to find out: an application's classes name their modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..errors import ApplicationError

_ASGI = "ASGI"
_WSGI = "WSGI"
_FRAMEWORKS = {
    ("fastapi", "FastAPI"): ("FastAPI", _ASGI),
    ("starlette", "Starlette"): ("Starlette", _ASGI),
    ("starlette", "Router"): ("Starlette", _ASGI),
    ("django", "ASGIHandler"): ("Django", _ASGI),
    ("django", "ASGIStaticFilesHandler"): ("Django", _ASGI),
    ("django", "WSGIHandler"): ("Django", _WSGI),
    ("quart", "Quart"): ("Quart", _ASGI),
    ("litestar", "Litestar"): ("Litestar", _ASGI),
    ("sanic", "Sanic"): ("Sanic", _ASGI),
    ("falcon", "App"): ("Falcon", _ASGI),
    ("blacksheep", "Application"): ("BlackSheep", _ASGI),
    ("flask", "Flask"): ("Flask", _WSGI),
}
"""(top package, class) -> what people call it, and what it speaks."""
_MIDDLEWARE_DEPTH = 20


def check_framework(application: object, app: str) -> None:
    """Refuse an application that would answer every message with an error.

    Args:
        application: what ``app`` names; looked at, never called.
        app: its name, for the message.

    Raises:
        ApplicationError: a web framework's application, or a Channels router without a
            ``channel`` entry.
    """
    known = _framework_of(application)
    if known is not None:
        name, speaks = known
        what = "http and websocket" if speaks == _ASGI else "WSGI"
        raise ApplicationError(
            f"{app} is a {name} application: it speaks {what}, and Wherry brings it messages "
            "(scope type 'channel'). Run it with its own server, send from its endpoints with "
            "wherry.Client, and give `wherry run` an application that handles the messages: "
            "docs/fastapi.md shows the two side by side"
        )
    if is_channels(application, "ProtocolTypeRouter"):
        routes = getattr(application, "application_mapping", None)
        if isinstance(routes, Mapping) and "channel" not in routes:
            spoken = ", ".join(sorted(str(one) for one in cast("Mapping[object, object]", routes)))
            raise ApplicationError(
                f"{app} is a ProtocolTypeRouter for {spoken or 'nothing'}; add an entry "
                '"channel": ChannelNameRouter({"wherry": YourConsumer.as_asgi()}), '
                "as docs/from-runworker.md shows"
            )


def _framework_of(application: object) -> tuple[str, str] | None:
    """The framework whose ``__call__`` would run, behind the framework's own middleware too."""
    for _ in range(_MIDDLEWARE_DEPTH):
        # A subclass with a __call__ of its own may well know what to do with a message.
        caller = next(
            (one for one in type(application).__mro__ if "__call__" in vars(one)), type(application)
        )
        known = _FRAMEWORKS.get((_package_of(caller), caller.__name__))
        if known is not None:
            return known
        if _package_of(caller) != "starlette" or not hasattr(application, "app"):
            return None
        application = cast("object", getattr(application, "app"))  # noqa: B009 -- untyped
    return None


def is_channels(application: object, *names: str) -> bool:
    """Whether an application is an instance of one of these classes of Django Channels."""
    return any(
        _package_of(one) == "channels" and one.__name__ in names
        for one in type(application).__mro__
    )


def _package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]
