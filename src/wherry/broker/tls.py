"""TLS: what a URL says of certificates, checked before anything connects.

A wrong file would else be met at each connection, and be waited for like an outage.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .options import TLS_FILES, read_switch

_DEMANDS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How connections are encrypted.

    Attributes:
        keywords: redis-py's, for its own connections.
        context: the same for ours.
    """

    keywords: Mapping[str, Any] = field(repr=False)
    context: ssl.SSLContext


def read_tls(options: Mapping[str, str]) -> Tls:
    """TLS as options of a URL want it; relative paths are those of the working directory.

    Raises:
        ConfigError: an option is none of those that it may be, or a file cannot be used.
    """
    demand = options.get("ssl_cert_reqs", "required")
    if demand not in _DEMANDS:
        raise ConfigError(f"ssl_cert_reqs is {demand!r}; it must be one of {', '.join(_DEMANDS)}")
    found: dict[str, Any] = {"ssl_cert_reqs": demand}
    found["ssl_check_hostname"] = demand != "none" and read_switch(
        options, "ssl_check_hostname", default=True
    )
    for name in (*TLS_FILES, "ssl_ca_path"):
        if name in options:
            found[name] = str(_find(name, options[name], is_file=name in TLS_FILES))
    if "ssl_keyfile" in found and "ssl_certfile" not in found:
        raise ConfigError("ssl_keyfile is the key of a certificate; give that, too: ssl_certfile")
    for name in ("ssl_password", "ssl_ciphers"):
        if name in options:
            found[name] = options[name]
    if "ssl_min_version" in options:
        version = options["ssl_min_version"]
        if version not in _VERSIONS:
            raise ConfigError(f"ssl_min_version is {version!r}; write {' or '.join(_VERSIONS)}")
        found["ssl_min_version"] = _VERSIONS[version]
    return Tls(keywords=found, context=_load(found))


def _find(name: str, text: str, *, is_file: bool) -> Path:
    path = Path(text).expanduser().absolute()
    try:
        if is_file:
            path.open("rb").close()
        elif not path.is_dir():
            raise NotADirectoryError("no such directory")
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror or error}") from None
    return path


def _load(found: Mapping[str, Any]) -> ssl.SSLContext:
    """Everything loaded, as redis-py does for each connection."""
    context = ssl.create_default_context()
    context.check_hostname = found["ssl_check_hostname"]
    context.verify_mode = _DEMANDS[found["ssl_cert_reqs"]]
    if "ssl_min_version" in found:
        context.minimum_version = found["ssl_min_version"]
    part, what = "ssl_ca_certs", "certificates in PEM format"
    try:
        if "ssl_ca_certs" in found or "ssl_ca_path" in found:
            context.load_verify_locations(found.get("ssl_ca_certs"), found.get("ssl_ca_path"))
        part, what = "ssl_certfile", "a certificate, with the key that belongs to it"
        if "ssl_certfile" in found:
            # Without a function it would ask for the password at the terminal.
            context.load_cert_chain(
                found["ssl_certfile"],
                found.get("ssl_keyfile"),
                lambda: found.get("ssl_password", ""),
            )
        part, what = "ssl_ciphers", "ciphers that OpenSSL knows"
        if "ssl_ciphers" in found:
            context.set_ciphers(found["ssl_ciphers"])
    except (ssl.SSLError, OSError, ValueError) as error:
        hint = "; is ssl_password right?" if part == "ssl_certfile" else ""
        raise ConfigError(f"{part}={found.get(part)} does not hold {what}: {error}{hint}") from None
    return context
