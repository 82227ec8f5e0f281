"""Options: what may stand behind the question mark of a URL about TLS, and how switches are read.

Apart from `wherry.broker.tls`, which loads OpenSSL: to do so takes a probe a good part of its time.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError

TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS = (
    *TLS_FILES,
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_min_version",
    "ssl_password",
)
"""Options of a URL, named as redis-py's keywords are."""

_SWITCHES = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def read_switch(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A switch, written as anywhere in Wherry's settings.

    Raises:
        ConfigError: it is neither on nor off.
    """
    text = options.get(name)
    if text is None:
        return default
    if text.lower() not in _SWITCHES:
        raise ConfigError(f"{name} is {text!r}; write 1 or 0")
    return _SWITCHES[text.lower()]
