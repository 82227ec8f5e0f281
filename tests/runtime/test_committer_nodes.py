"""The committer on a cluster: each node has a way of its own, and slots move between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.e2e.rig import until
from tests.runtime.test_committer import RETENTION, Desk, hold, put
from wherry.broker.commits import Outcome
from wherry.errors import StoreUnavailable
from wherry.model import Partition

BETWEEN = StoreUnavailable("Redis at a cannot serve now: TRYAGAIN Multiple keys request")


class Nodes(Desk):
    """Partitions are on node "a", but for those that are somewhere else."""

    def __init__(self) -> None:
        super().__init__(RETENTION)
        self.places: dict[Partition, str] = {}
        self.committer._node_of = lambda partition: self.places.get(partition, "a")


@asynccontextmanager
async def nodes() -> AsyncGenerator[Nodes]:
    made = Nodes()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.committer.run())
        yield made
        running.cancel()


async def test_silent_node_holds_up_its_own_partitions_alone():
    async with nodes() as it:
        zero, one = hold(0), hold(1)
        it.places[one.partition] = "b"
        put(it, zero, "1")
        (silent,), never = await it.link.next()
        assert silent.partition == 0
        for number in range(3):
            put(it, one, f"other-{number}")
            (call,), answer = await it.link.next()
            assert call.ids == [f"id-other-{number}"]
            answer.set_result([[1]])
            await until(lambda count=number: len(it.told) == count + 1)
        assert not never.done()
        assert not it.committer.is_idle


async def test_partition_whose_slot_is_on_its_way_is_tried_again_and_the_others_go_on():
    async with nodes() as it:
        zero, one = hold(0), hold(1)
        put(it, zero, "1")
        put(it, one, "2")
        calls, answer = await it.link.next()
        assert [call.partition for call in calls] == [0, 1]
        answer.set_result([BETWEEN, [1]])
        await until(lambda: it.told)
        put(it, one, "3")
        (call,), answer = await it.link.next()
        assert call.ids == ["id-3"], "it need not wait for the other"
        answer.set_result([[1]])
        put(it, zero, "4")
        (call,), answer = await it.link.next()
        assert (call.partition, call.ids) == (0, ["id-1"]), "first in, first out"
        assert call.is_resent
        assert not it.hooks.warned
        answer.set_result([[1]])
        (call,), answer = await it.link.next()
        assert call.ids == ["id-4"]
        answer.set_result([[1]])


async def test_call_that_was_not_answered_goes_after_its_slot_with_what_is_behind_it():
    async with nodes() as it:
        zero = hold(0)
        put(it, zero, "1")
        _, answer = await it.link.next()
        put(it, zero, "2")
        it.places[zero.partition] = "b"
        await asyncio.sleep(0)
        assert it.link.writes.empty(), "one call of a partition is under way"
        answer.set_result([StoreUnavailable("a was killed")])
        (call,), answer = await it.link.next()
        assert call.ids == ["id-1"]
        assert call.is_resent
        answer.set_result([[0]])
        await until(lambda: it.told)
        assert it.outcomes() == [[Outcome.DONE]], "done already, by ourselves"
        (call,), answer = await it.link.next()
        assert call.ids == ["id-2"]
        assert not call.is_resent
        answer.set_result([[1]])


async def test_lost_partition_that_was_set_aside_is_not_sent_again():
    async with nodes() as it:
        zero, one = hold(0), hold(1)
        put(it, zero, "1")
        _, answer = await it.link.next()
        answer.set_result([BETWEEN])
        await until(lambda: not it.committer._ways["a"].is_sending)
        queue = it.committer._queues[zero]
        zero.is_lost = True
        it.committer.discard(zero)
        await until(lambda: not queue.is_aside)
        put(it, one, "2")
        (call,), answer = await it.link.next()
        assert call.partition == 1
        answer.set_result([[1]])
