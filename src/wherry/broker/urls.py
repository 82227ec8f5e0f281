"""URLs: what a store's URL says, read once and checked; nothing is connected to here.

A URL may hold passwords. Nothing in this module says one: texts name what is wrong by the URL
without them, and by its parts only where these cannot hold a piece of one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from ..errors import ConfigError
from .options import TLS_OPTIONS, read_switch
from .passwords import hide_password

if TYPE_CHECKING:
    from .tls import Tls

_REDIS_PORT, _SENTINEL_PORT = 6379, 26379
_MOST_PORT = 65_535
_UNQUOTED = re.compile(r"[/?#@]")


class Kind(Enum):
    """What a store is, and with that how it is reached."""

    REDIS = "redis"
    """One server by its host and port."""
    UNIX = "unix"
    """One server by its socket."""
    SENTINEL = "sentinel"
    """The primary that sentinels name."""
    CLUSTER = "cluster"
    """The nodes of a cluster, found from any of them."""
    EMBEDDED = "embedded"
    """A private server of a directory."""
    MEMORY = "memory"
    """An imitation inside the process."""


SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": (Kind.REDIS, False),
    "rediss": (Kind.REDIS, True),
    "valkey": (Kind.REDIS, False),
    "valkeys": (Kind.REDIS, True),
    "unix": (Kind.UNIX, False),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "valkey+sentinel": (Kind.SENTINEL, False),
    "valkeys+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
    "valkey+cluster": (Kind.CLUSTER, False),
    "valkeys+cluster": (Kind.CLUSTER, True),
    "embedded": (Kind.EMBEDDED, False),
    "memory": (Kind.MEMORY, False),
}
"""Scheme -> what it stands for, and whether it goes over TLS."""

_ANY_OPTIONS = ("db", "username", "password", "socket_connect_timeout")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password", "sentinel_ssl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A store's URL, taken apart.

    Attributes:
        kind: what it is.
        shown: the URL, fit to be shown: no passwords.
        places: host and port of the server, of each sentinel, or of some nodes of a cluster.
        path: socket of a `UNIX` store, directory of an `EMBEDDED` one, name of one in `MEMORY`.
        service: the name under which sentinels know the primary.
        login: redis-py's keywords for user, password and database.
        sentinel_login: the same for the sentinels.
        tls: how the server is spoken to; None without TLS.
        sentinel_tls: the same for the sentinels.
        connect_timeout_s: longest time for a connection to come about, in seconds.
    """

    kind: Kind
    shown: str
    places: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    login: Mapping[str, Any] = field(default_factory=lambda: {}, repr=False)
    sentinel_login: Mapping[str, Any] = field(default_factory=lambda: {}, repr=False)
    tls: Tls | None = None
    sentinel_tls: Tls | None = None
    connect_timeout_s: float = 5.0

    @property
    def server(self) -> dict[str, Any]:
        """Redis-py's keywords for a connection to the server; without a place by sentinels."""
        keywords = {
            **self.login,
            **(self.tls.keywords if self.tls else {}),
            "socket_connect_timeout": self.connect_timeout_s,
        }
        if self.kind is Kind.UNIX:
            keywords["path"] = self.path
        elif self.kind is Kind.REDIS:
            keywords["host"], keywords["port"] = self.places[0]
        return keywords


class _Malformed(ValueError):
    """Something is wrong with a URL; the text says what."""


def parse_url(url: str) -> Address:
    """Take a store's URL apart; reads the files that it names.

    Raises:
        ConfigError: no URL that Wherry knows, malformed, or a file of it cannot be used.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigError(
            f"store URL {hide_password(url)!r} is not one that Wherry knows; "
            + _hint(f"{scheme}://", [f"{name}://" for name in SCHEMES])
        )
    kind, is_tls = SCHEMES[scheme]
    if kind in (Kind.EMBEDDED, Kind.MEMORY):
        return Address(kind=kind, shown=hide_password(url), path=rest)
    place, _, query = rest.partition("?")
    login, place = _split_login(place, kind)
    # An unquoted letter of a password may have moved the bounds: then no part can be shown.
    is_doubtful = "@" in place + query or "#" in rest or _UNQUOTED.search("".join(login))
    try:
        if is_doubtful:
            raise _Malformed("quote special letters, above all of the password: %2F for /")
        return _read(kind, is_tls, login, place, query, hide_password(url))
    except _Malformed as error:
        raise ConfigError(f"store URL {hide_password(url)!r} is malformed: {error}") from None


def _split_login(place: str, kind: Kind) -> tuple[tuple[str, str], str]:
    """User and password, as written, and what is behind them."""
    if kind is Kind.UNIX and place.startswith("/"):
        return ("", ""), place
    login, _, place = place.rpartition("@")
    user, _, password = login.partition(":")
    return (user, password), place


def _read(
    kind: Kind, is_tls: bool, login: tuple[str, str], place: str, query: str, shown: str
) -> Address:
    options = _read_query(kind, is_tls, query)
    hosts, slash, path = place.partition("/")
    service, places = "", ()
    database = path
    if kind is Kind.UNIX:
        if hosts or not path:
            raise _Malformed("the socket's whole path follows: unix:///run/redis.sock")
        database = ""
    elif kind is Kind.SENTINEL:
        places = tuple(_read_place(one, _SENTINEL_PORT) for one in hosts.split(","))
        service, _, database = path.partition("/")
        if not service:
            raise _Malformed(
                "it does not name the service that the sentinels watch: "
                "redis+sentinel://HOST:26379,HOST:26379/SERVICE"
            )
    elif kind is Kind.CLUSTER:
        places = tuple(_read_place(one, _REDIS_PORT) for one in hosts.split(","))
        if _read_database(options, path):
            raise _Malformed("it names a database, and a cluster has none but 0")
    else:
        if "," in hosts:
            raise _Malformed(
                "it names several servers; a cluster has redis+cluster://, sentinels have "
                "redis+sentinel://"
            )
        places = (_read_place(hosts or "localhost", _REDIS_PORT, default="localhost"),)
    tls = sentinel_tls = None
    if is_tls:
        from .tls import read_tls  # loads OpenSSL

        tls = read_tls(options)
    if tls is not None and read_switch(options, "sentinel_ssl", default=True):
        sentinel_tls = tls
    return Address(
        kind=kind,
        shown=shown,
        places=places,
        path=unquote(slash + path) if kind is Kind.UNIX else "",
        service=unquote(service),
        login=_read_login(options, login) | {"db": _read_database(options, database)},
        sentinel_login=_read_login(options, ("", ""), "sentinel_"),
        tls=tls,
        sentinel_tls=sentinel_tls,
        connect_timeout_s=_read_seconds(options, "socket_connect_timeout", 5.0),
    )


def _read_query(kind: Kind, is_tls: bool, query: str) -> dict[str, str]:
    known = [*_ANY_OPTIONS, *TLS_OPTIONS] + [*_SENTINEL_OPTIONS] * (kind is Kind.SENTINEL)
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise _Malformed(f"it has no option {name!r}; {_hint(name, known)}")
        if name in options:
            raise _Malformed(f"option {name} is given twice")
        if name in (*TLS_OPTIONS, "sentinel_ssl") and not is_tls:
            raise _Malformed(f"option {name} is about TLS; that is the scheme with an s, rediss")
        options[name] = value
    return options


def _read_place(text: str, default_port: int, *, default: str = "") -> tuple[str, int]:
    """Host and port of ``host``, ``host:port`` or, in brackets, an IPv6 address."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*))(?::([^:]*))?", text)
    if found is None:
        raise _Malformed(f"{text!r} is not HOST:PORT; an IPv6 address is written in brackets")
    host = unquote(found[1] or found[2] or default)
    if not host:
        raise _Malformed("a host is missing")
    port = found[3] or str(default_port)
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= _MOST_PORT:
        raise _Malformed(f"port {port!r} is no number between 1 and {_MOST_PORT}")
    return host, int(port)


def _read_login(
    options: Mapping[str, str], login: tuple[str, str], prefix: str = ""
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, written in zip(("username", "password"), login, strict=True):
        given = options.get(prefix + name)
        if written and given is not None:
            raise _Malformed(f"it has two of {name}: before the @, and as an option")
        value = unquote(written) if given is None else given
        if value:
            found[name] = value
    return found


def _read_database(options: Mapping[str, str], path: str) -> int:
    written = path.rstrip("/")
    given = options.get("db", written)
    if written and written != given:
        raise _Malformed(f"it names two databases, {written} and {given}")
    if given and not (given.isascii() and given.isdecimal()):
        raise _Malformed(f"database {given!r} is no number")
    return int(given or 0)


def _read_seconds(options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise _Malformed(f"{name} is {text!r}; it must be seconds above 0")
    return seconds


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else "use one of " + ", ".join(known)
