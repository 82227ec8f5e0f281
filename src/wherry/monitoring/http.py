"""HTTP, as much as probes and scrapers need: one GET or HEAD, one answer, and the connection ends.

Whoever connects is not trusted: a request is small and comes soon, or it is not heard.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

REQUEST_BYTES = 8_192
REQUEST_WITHIN_S = 5.0
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer.

    Attributes:
        status: code.
        body: what it says.
        content_type: of the body.
    """

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        path: without a query.
        is_head: only the head of the answer is wanted.
    """

    path: str
    is_head: bool = False


async def read_request(reader: asyncio.StreamReader) -> Request | Response | None:
    """The request of a connection, or the answer to what is none; None: nobody asks any more.

    Raises:
        TimeoutError: it did not come in time.
        OSError: the connection broke.
    """
    try:
        async with asyncio.timeout(REQUEST_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return Response(400, "an incomplete request\n") if error.partial else None
    except asyncio.LimitOverrunError:
        return Response(431, f"a request has at most {REQUEST_BYTES} bytes\n")
    line, _, _ = head.partition(b"\r\n")
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return Response(400, "no HTTP/1.1 request\n")
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        return Response(405, "only GET and HEAD\n")
    path, _, _ = target.partition("?")
    return Request(path, method == "HEAD")


def encode(response: Response, *, is_head: bool = False) -> bytes:
    """The bytes of an answer."""
    body = response.body.encode()
    head = [
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if response.status == 405:
        head.append("Allow: GET, HEAD")
    return "\r\n".join([*head, "", ""]).encode() + (b"" if is_head else body)
