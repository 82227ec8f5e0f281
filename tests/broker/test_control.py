"""Requests of operators and answers of workers, as they travel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.broker.tenure import ZERO, Tenure, opened, tenure
from tests.servers import available_servers
from wherry.broker.control import (
    ANSWER_TTL_MS,
    MOST_ANSWERS,
    MOST_ROWS,
    Deed,
    Order,
    Request,
    ask,
    read_request,
    write_answer,
    write_request,
)
from wherry.broker.namespaces import read_scope
from wherry.model import ScopeId


@pytest.fixture(params=list(available_servers()))
def place(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    "request_",
    [
        Request(deed=Deed.DRAIN, worker="w1"),
        Request(deed=Deed.SCOPES, order=Order.WAITING, count=7),
        Request(deed=Deed.SCOPE, worker="w1", scope='é"\n'),
    ],
)
def test_request_is_read_as_it_was_written(request_: Request):
    assert read_request(write_request(request_)) == request_


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"left",
        b"[]",
        b"3",
        b"\xff",
        b'{"id": "0123456789"}',
        b'{"id": "0123456789", "do": "dance"}',
        b'{"id": "0123456789", "do": "scopes", "order": "size"}',
        b'{"id": "0123456789", "do": "scopes", "count": "many"}',
        b'{"id": "a}:x", "do": "scopes"}',
        b'{"id": "0123", "do": "scopes"}',
        b'{"id": "0123456789", "do": "scope", "scope": "' + b"x" * 5000 + b'"}',
    ],
)
def test_what_is_no_request_is_none(data: bytes):
    assert read_request(data) is None


def test_count_is_bounded():
    found = read_request(b'{"id": "0123456789", "do": "scopes", "count": 100000}')
    assert found is not None
    assert found.count == MOST_ROWS


async def test_answers_are_bounded_and_expire(place: str, server_pool: Any):
    async with tenure(opened(place, server_pool)) as held:
        request = Request(deed=Deed.SCOPES)
        key = held.keys.answer(request.request_id)
        await held.link.call("RPUSH", key, *(["x"] * (MOST_ANSWERS - 1)))
        for number in range(3):
            answer = {"worker": f"w{number}"}
            await write_answer(held.link, held.scripts.answer, held.keys, request, answer)
        assert await held.link.call("LLEN", key) == MOST_ANSWERS
        assert 0 < await held.link.call("PTTL", key) <= ANSWER_TTL_MS


async def test_request_that_is_lost_is_published_again(place: str, server_pool: Any):
    """Who subscribes again after a broken connection has heard nothing meanwhile."""
    async with tenure(opened(place, server_pool)) as held:
        request = Request(deed=Deed.SCOPES)
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
            asking = tasks.create_task(ask(held.link, held.keys, request, {"w1"}, 15.0))
            await asyncio.sleep(0)  # the first one is on its way before anybody listens
            hearing = await held.link.subscribe(held.keys.released, held.keys.control)
            try:
                channel, data = await hearing.next()
            finally:
                await hearing.aclose()
            assert channel == held.keys.control
            heard = read_request(data)
            assert heard == request
            for name in ("stranger", "w1"):
                await write_answer(
                    held.link, held.scripts.answer, held.keys, request, {"worker": name, "n": 1}
                )
            assert await asking == {"w1": {"worker": "w1", "n": 1}}
        assert await held.link.call("EXISTS", held.keys.answer(request.request_id)) == 0


async def test_who_does_not_answer_is_missing(place: str, server_pool: Any):
    async with tenure(opened(place, server_pool)) as held:
        assert await ask(held.link, held.keys, Request(deed=Deed.SCOPES), {"w1"}, 0.05) == {}


async def test_entries_of_a_scope_are_counted_within_bounds(place: str, server_pool: Any):
    async with tenure(opened(place, server_pool)) as held:
        first = await held.add("other")
        mine = await held.add("mine", "x", "1")
        await held.add("mine")
        assert await waiting(held, "mine") == (2, mine, 3, 3)
        assert await waiting(held, "other") == (1, first, 3, 3)
        assert await waiting(held, "nobody") == (0, "", 3, 3)
        for _ in range(1100):
            await held.add("crowd")
        await held.add("late")
        assert await waiting(held, "late") == (0, "", 1000, 1104)


async def test_large_entries_end_the_count_early(place: str, server_pool: Any):
    async with tenure(opened(place, server_pool)) as held:
        for _ in range(24):
            await held.add("mine", "x", "y" * 2**19)
        found, _, looked_at, backlog = await waiting(held, "mine")
        assert (found, looked_at, backlog) == (8, 8, 24)


async def waiting(held: Tenure, scope: str) -> tuple[int, str, int, int]:
    found = await read_scope(held.link, held.scripts, held.keys, ZERO, ScopeId(scope))
    return found.waiting, found.first, found.looked_at, found.backlog
