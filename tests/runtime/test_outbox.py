"""What an application may not send is refused out of its `send()`, and nothing else is harmed."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.errors import MessageError
from wherry.testing import Harness


@pytest.mark.parametrize("event", [{}, {"type": None}, {"type": 3}, {"type": []}, {"type": b"t"}])
def test_event_without_a_type_of_text_is_refused(event: dict[str, Any]):
    refused: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()
            try:
                await send(event)
            except MessageError as error:
                refused.append(error)
            await send({"type": "after"})

    with Harness(app) as harness:
        assert harness.request("alice", {"type": "t"}) == [{"type": "after"}]
    assert "'type' of type str" in str(refused[0])
