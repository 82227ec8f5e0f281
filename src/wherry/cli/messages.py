"""``wherry send``, ``request`` and ``replies``: JSON lines in and out of a client.

Bytes, which JSON does not know, are written ``{"$bytes": "<base64>"}``, in both directions.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import select
import sys
from contextlib import aclosing
from typing import cast

from ..broker.connect import Store
from ..client.client import Client
from ..client.envelope import RequestOptions
from ..config import Config
from ..errors import ConfigError, MessageError
from ..model import Message, Reply, Restarted

_EXAMPLE = """'{"type": "chat.message", "text": "hello"}'"""
_ENTRY_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
_LOOK_S = 1.0
"""How often a quiet follower looks whether somebody still reads its output; no Redis involved."""


def read_message(text: str) -> Message:
    """The message of a command line; ``-`` reads it from standard input.

    Raises:
        MessageError: not a JSON object with a ``type``.
    """
    if text == "-":
        text = sys.stdin.read()
    try:
        value: object = json.loads(text, object_hook=_decode_bytes)
    except (ValueError, RecursionError) as error:
        raise MessageError(
            f"the message is not JSON ({error}); write an object with a type: {_EXAMPLE}"
        ) from error
    if not isinstance(value, dict):
        raise MessageError(
            f"the message is JSON but no object; give it a type and a name: {_EXAMPLE}"
        )
    message = cast("Message", value)
    if not isinstance(message.get("type"), str):
        raise MessageError(
            f"the message has no 'type' of text, which tells the application what it is: {_EXAMPLE}"
        )
    return message


def check_entry_id(text: str) -> str:
    """An id for ``--after``.

    Raises:
        ConfigError: not ``<milliseconds>-<sequence>``.
    """
    if not _ENTRY_ID.fullmatch(text):
        raise ConfigError(
            f"--after {text!r} is not an entry id; copy the id of a reply, such as 1700000000000-0"
        )
    return text


def make_client(store: Store, config: Config) -> Client:
    """A client of a command; it connects at its first use."""
    return Client(store, config=config)


async def send(client: Client, scope: str, message: Message, options: RequestOptions) -> None:
    """Send one message and print its entry id; ``options`` are those of `Client.send`."""
    async with client:
        print(await client.send(scope, message, **options))


async def request(
    client: Client,
    scope: str,
    message: Message,
    options: RequestOptions,
    *,
    timeout_s: float,
    stream: bool,
) -> None:
    """Send one message and print its replies, all at the end or as they come.

    ``timeout_s`` is for the whole answer, with ``stream`` for the longest silence in it.

    An answer that begins anew is announced by a line of type ``wherry.restarted``.
    """
    async with client:
        if not stream:
            for reply in await client.request(scope, message, timeout_s=timeout_s, **options):
                write_line(reply)
            return
        answers = client.request_stream(scope, message, timeout_s=timeout_s, **options)
        async with aclosing(answers):
            async for one in answers:
                if isinstance(one, Restarted):
                    line = {"type": "wherry.restarted", "cause": one.cause, "attempt": one.attempt}
                    write_line(line)
                elif one.message is not None:
                    write_line(one.message)


async def replies(client: Client, scope: str, *, after: str | None, follow: bool) -> None:
    """Print a scope's reply stream, one line for each entry.

    With ``follow`` it goes on until it is interrupted or nobody reads its output any more.
    """
    async with client:
        heartbeat_s = _LOOK_S if follow else None
        found = client.replies(scope, after=after, follow=follow, heartbeat_s=heartbeat_s)
        async with aclosing(found):
            async for one in found:
                if one is not None:
                    write_line(describe_reply(one))
                elif is_output_closed():
                    return


def describe_reply(one: Reply | Restarted) -> dict[str, object]:
    """A reply as a line shows it; what is empty is left out, but not the message."""
    if isinstance(one, Restarted):
        return {"restarted": True, "cause": one.cause, "attempt": one.attempt}
    line: dict[str, object] = {"id": one.id, "cause": one.cause, "index": one.index}
    if one.attempt:
        line["attempt"] = one.attempt
    if one.count is not None:
        line["count"] = one.count
    if one.error is not None:
        line["error"] = one.error
    return line | {"message": one.message}


def write_line(value: object) -> None:
    """Print a value as one line of JSON, at once."""
    is_ascii = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(encode_bytes(value), ensure_ascii=is_ascii), flush=True)


def is_output_closed() -> bool:
    """Whether the process that reads our output through a pipe has gone."""
    if not hasattr(select, "poll"):  # Windows: found out at the next write
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def encode_bytes(value: object) -> object:
    """The value as JSON can have it: bytes as base64, keys as text."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {_key(key): encode_bytes(one) for key, one in pairs}
    if isinstance(value, list | tuple):
        return [encode_bytes(one) for one in cast("list[object]", value)]
    return value


def _key(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return key if isinstance(key, str) else json.dumps(key)


def _decode_bytes(value: dict[str, object]) -> object:
    encoded = value.get("$bytes")
    if len(value) != 1 or not isinstance(encoded, str):
        return value
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise MessageError(f'{{"$bytes": ...}} in the message is not base64: {error}') from error
