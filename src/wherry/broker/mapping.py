"""Mapping: which of our errors stands for which error of redis-py, or of a server."""

from __future__ import annotations

import redis.exceptions as redis_errors

from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError

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
    if isinstance(error, redis_errors.ConnectionError | redis_errors.TimeoutError | OSError):
        return StoreUnavailable(f"Redis at {where} cannot be reached: {text}")
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return StoreRefused(f"Redis at {where} wants a login: {text}; put it into the URL")
    if _code_of(error, text) in _TRANSIENT:
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
    if code in _TRANSIENT or text.startswith(_FULL):
        return StoreUnavailable(f"Redis at {where} cannot serve now: {text}")
    return StoreError(f"Redis at {where} answered: {text}")


def _code_of(error: Exception, text: str) -> str:
    """The first word of the answer; redis-py cuts it off where it has a class for it."""
    code = error.status_code if isinstance(error, redis_errors.RedisError) else None
    return code or text.split(" ", 1)[0]
