"""Mapping: which of our errors stands for which error of redis-py, or of a server."""

from __future__ import annotations

import ssl
from typing import cast

import redis.exceptions as redis_errors

from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from .redirects import Redirected, read_redirect

_TRANSIENT = {
    "LOADING",
    "BUSY",
    "READONLY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "MOVED",
    "ASK",
    "NOREPLICAS",
    "OOM",
    "MISCONF",
    "UNBLOCKED",
}
_LOGIN = {"NOAUTH", "WRONGPASS"}
# Of servers without users, and of those that want no password.
_NO_LOGIN = ("ERR invalid password", "ERR AUTH <password> called without", "ERR Client sent AUTH")
_FULL = "ERR max number of clients reached"
_READ_ONLY = "READONLY"
# What OpenSSL makes of an answer that is no TLS.
_NO_TLS = {
    "WRONG_VERSION_NUMBER",
    "UNKNOWN_PROTOCOL",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
}
# A right that is missing inside a script has no error code of its own.
_REFUSALS = ("ACL failure in script", "user executing the script can't")


def map_error(error: Exception, where: str) -> WherryError:
    """The error of ours that stands for one of redis-py's; ``where`` is the URL to show."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis_errors.AuthenticationError):
        return StoreRefused(
            f"Redis at {where} refuses the login: {text}; check user and password of the URL"
        )
    if isinstance(error, redis_errors.AuthorizationError | redis_errors.NoPermissionError) or any(
        part in text for part in _REFUSALS
    ):
        return StoreRefused(
            f"Redis at {where} refuses a command: {text}; grant it with ACL SETUSER"
        )
    if refusal := _refusal_of_tls(error):
        return StoreRefused(f"Redis at {where} {refusal}")
    if isinstance(error, redis_errors.ConnectionError | redis_errors.TimeoutError | OSError):
        return StoreUnavailable(f"Redis at {where} cannot be reached: {text}")
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return StoreRefused(f"Redis at {where} wants a login: {text}; put it into the URL")
    if isinstance(error, redis_errors.AskError):
        return _redirected(error, where)
    if _code_of(error, text) in _TRANSIENT or is_of_a_replica(error):
        return StoreUnavailable(f"Redis at {where} cannot serve now: {text}")
    return StoreError(f"Redis at {where} answered: {text}")


def map_answer(text: str, where: str) -> WherryError:
    """The error of ours that stands for an error answer, as the server worded it."""
    code = text.split(" ", 1)[0]
    if code in _LOGIN or text.startswith(_NO_LOGIN):
        return StoreRefused(
            f"Redis at {where} refuses the login: {text}; check user and password of the URL"
        )
    if code == "NOPERM" or any(part in text for part in _REFUSALS):
        return StoreRefused(
            f"Redis at {where} refuses a command: {text}; grant it with ACL SETUSER"
        )
    if code in _TRANSIENT or text.startswith(_FULL) or _READ_ONLY in text:
        sentence = f"Redis at {where} cannot serve now: {text}"
        return read_redirect(text, sentence) or StoreUnavailable(sentence)
    return StoreError(f"Redis at {where} answered: {text}")


def is_of_a_replica(error: Exception) -> bool:
    """Whether an error says that the server is no primary any more: another one is to be asked.

    Servers before 7.0 say it of a script in the midst of a sentence.
    """
    return isinstance(error, redis_errors.ReadOnlyError) or _READ_ONLY in str(error)


def _redirected(error: redis_errors.AskError, where: str) -> Redirected:
    is_ask = not isinstance(error, redis_errors.MovedError)
    host, port = cast("tuple[str, int]", error.node_addr)
    code = "ASK" if is_ask else "MOVED"
    return Redirected(
        f"Redis at {where} cannot serve now: {code} {error.slot_id} {host}:{port}",
        slot=int(error.slot_id),
        host=host,
        port=port,
        is_ask=is_ask,
    )


def _refusal_of_tls(error: BaseException | None) -> str:
    """What about TLS time does not mend, and the remedy; "" for any other trouble."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if error is None:
        return ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted: {error.verify_message}; "
            "name the file of its CA: ?ssl_ca_certs=FILE"
        )
    reason = error.reason or ""
    if reason in _NO_TLS:
        return "does not speak TLS; use the scheme without the s (redis://)"
    if "ALERT" in reason and any(part in reason for part in ("CERT", "UNKNOWN_CA", "HANDSHAKE")):
        return (
            f"refuses the TLS connection: {reason.lower().replace('_', ' ')}; it may want a "
            "certificate of ours: ?ssl_certfile=FILE&ssl_keyfile=FILE"
        )
    return ""


def _code_of(error: Exception, text: str) -> str:
    """The first word of the answer; redis-py cuts it off where it has a class for it."""
    code = error.status_code if isinstance(error, redis_errors.RedisError) else None
    return code or text.split(" ", 1)[0]
