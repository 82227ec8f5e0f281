"""A script in the midst of a slot's migration: what it has deleted itself, it must not touch again.

A call whose keys are all there is carried out; in it, a command on a key that is not there is
refused as one for another node, and what was written before stays written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.clustering import slot_of
from tests.broker.tenure import DONE, ZERO, Tenure, change, commit, reply, tenure
from tests.clusters import Clustered
from tests.servers import available_servers
from tests.servers_plugin import default_server
from wherry.broker.connect import open_store
from wherry.model import EntryId

KINDS = [name for name in available_servers() if name in (default_server(), "redis-server")]


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clustered]:
    """Two primaries; one alone has nowhere to move a slot to."""
    binary = available_servers()[request.param]
    with Clustered(binary, tmp_path / "nodes", primaries=2, replicas=0) as found:
        yield found


async def _begun(held: Tenure, cluster: Clustered) -> list[EntryId]:
    """All keys are there, and their slot is on its way; two entries to be finished."""
    first, one, two = [await held.add() for _ in range(3)]
    await held.link.call("XADD", held.keys.dead(ZERO), "*", "s", "s")
    await held.link.call("HSET", held.keys.attempts(ZERO), one, "row")
    assert await held.call(commit(first, reply(0), state=change("", b"zero"))) == [DONE]
    slot = slot_of(held.keys.entries(ZERO))
    source = cluster.owner(slot)
    target = next(node for node in cluster.nodes if node is not source)
    cluster.move([slot], target).begin()
    return [first, one, two]


async def test_last_attempts_row_goes_and_the_next_entry_is_finished(pair: Clustered):
    async with tenure(open_store(pair.url)) as held:
        _, one, two = await _begun(held, pair)
        assert await held.call(commit(one, reply(1)), commit(two, reply(2))) == [DONE, DONE]
        assert await held.entries() == []
        assert [record["m"] for record in await held.replies()] == [
            reply(0),
            reply(1),
            reply(2),
        ]


async def test_state_is_emptied_and_written_again_in_one_call(pair: Clustered):
    async with tenure(open_store(pair.url)) as held:
        first, one, two = await _begun(held, pair)
        emptied = commit(one, reply(1), state=change(first, b""))
        written = commit(two, reply(2), state=change("", b"two"))
        assert await held.call(emptied, written) == [DONE, DONE]
        assert await held.state() == (b"two", two.encode())
        assert len(await held.replies()) == 3
