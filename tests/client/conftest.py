"""Where the client's tests run: on a real server and in memory."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["server", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return f"memory://{request.node.name}"
    return request.getfixturevalue("redis_url")
