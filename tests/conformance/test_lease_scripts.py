"""Scripts of leases and members, on every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.broker.tenure import ZERO, Tenure, tenure
from tests.e2e.rig import until
from wherry.broker.commits import Emit
from wherry.broker.connect import Store
from wherry.broker.leases import Standing, read_members
from wherry.broker.link import Link
from wherry.broker.renewing import renew_apart, renew_together
from wherry.broker.streams import read_partitions
from wherry.broker.wire import Meta
from wherry.model import Partition, ScopeId, Token

pytestmark = pytest.mark.without("acl", why="tests look at keys with the same link")

ONE = Partition(1)


@asynccontextmanager
async def unclaimed(store: Store) -> AsyncGenerator[Tenure]:
    async with tenure(store) as held:
        assert await held.leases("worker").release(ZERO, held.token)
        yield held


async def is_later(link: Link, redis_ms: int) -> bool:
    seconds, microseconds = await link.call("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000 > redis_ms


async def lease(held: Tenure, partition: Partition = ZERO) -> dict[str, str]:
    flat = [part.decode() for part in await held.link.call("HGETALL", held.keys.lease(partition))]
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def renew(
    store: Store, held: Tenure, tokens: list[tuple[Partition, Token]]
) -> list[bool | None]:
    """As the renewing thread does it: leases in several slots of a cluster by a call for each."""

    def work() -> list[bool | None]:
        way = renew_together if store.topology is None else renew_apart
        link = store.sync_link()
        try:
            answers = way(link, held.scripts.renew, held.keys, tokens, 90_000)
        finally:
            link.close()
        return [answer if isinstance(answer, bool) else None for answer in answers]

    return await asyncio.to_thread(work)


async def test_claim_takes_what_is_free_and_tells_of_it(store: Store):
    async with unclaimed(store) as held:
        entry = await held.add()
        zero, one = await held.leases("a", 5_000).claim([ZERO, ONE])
        assert (zero.partition, zero.is_unclean, zero.last_id) == (ZERO, False, entry)
        assert (one.partition, one.is_unclean, one.last_id) == (ONE, False, "0-0")
        found = await lease(held)
        assert found["owner"] == "a"
        assert found["token"] == zero.token
        assert zero.token.startswith(f"{found['epoch']}:")
        assert found["ttl"] == "5000"
        assert found["emit"] == "0"
        assert found["generation"] == held.meta.generation
        assert found["partitions"] == "4"


async def test_each_claim_has_another_token_and_a_higher_epoch(store: Store):
    async with unclaimed(store) as held:
        tokens: list[Token] = []
        for worker in ("a", "a", "b"):
            (claimed,) = await held.leases(worker).claim([ZERO])
            tokens.append(claimed.token)
            await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        epochs = [int(token.partition(":")[0]) for token in tokens]
        assert epochs == sorted(set(epochs))
        assert len({token.partition(":")[2] for token in tokens}) == 3


async def test_live_lease_is_not_taken(store: Store):
    async with unclaimed(store) as held:
        (claimed,) = await held.leases("a").claim([ZERO])
        assert await held.leases("b").claim([ZERO]) == []
        assert (await lease(held))["token"] == claimed.token


async def test_own_lease_is_taken_again(store: Store):
    """The answer to a claim was lost: the worker does not know that it holds the partition."""
    async with unclaimed(store) as held:
        (first,) = await held.leases("a").claim([ZERO])
        (second,) = await held.leases("a").claim([ZERO])
        assert first.token != second.token


async def test_lease_that_ran_out_is_taken_as_unclean(store: Store):
    async with unclaimed(store) as held:
        await held.leases("a").claim([ZERO])
        await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        (claimed,) = await held.leases("b").claim([ZERO])
        assert claimed.is_unclean


async def test_unclean_claim_names_the_tenure_that_ended_so(store: Store):
    async with unclaimed(store) as held:
        (first,) = await held.leases("a").claim([ZERO])
        assert (first.is_unclean, first.is_again, first.previous) == (False, False, "")
        await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        (second,) = await held.leases("b").claim([ZERO])
        assert (second.is_unclean, second.is_again, second.previous) == (True, False, first.token)
        await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        (third,) = await held.leases("c").claim([ZERO])
        assert (third.is_unclean, third.is_again, third.previous) == (True, True, second.token)
        await held.leases("c").release(ZERO, third.token)
        (last,) = await held.leases("d").claim([ZERO])
        assert (last.is_unclean, last.is_again, last.previous) == (False, False, "")


async def test_who_claims_its_own_lease_again_did_not_die(store: Store):
    async with unclaimed(store) as held:
        await held.leases("a").claim([ZERO])
        (again,) = await held.leases("a").claim([ZERO])
        assert (again.is_unclean, again.previous) == (False, "")


async def test_unclean_takeovers_long_apart_are_not_a_series(store: Store):
    async with unclaimed(store) as held:
        await held.leases("a").claim([ZERO])
        long_ago = {"expiry": "1", "unclean": "1"}
        for name, value in long_ago.items():
            await held.link.call("HSET", held.keys.lease(ZERO), name, value)
        (claimed,) = await held.leases("b").claim([ZERO])
        assert (claimed.is_unclean, claimed.is_again) == (True, False)


async def test_lease_runs_out_by_the_servers_clock(store: Store):
    async with unclaimed(store) as held:
        await held.leases("a", ttl_ms=150).claim([ZERO])
        assert await held.leases("b").claim([ZERO]) == []
        await until(lambda: held.leases("b").claim([ZERO]), 5)
        assert (await lease(held))["owner"] == "b"


async def test_renewal_keeps_own_leases_also_those_that_ran_out(store: Store):
    async with unclaimed(store) as held:
        claimed = await held.leases("a", ttl_ms=1_000).claim([ZERO, ONE])
        await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        tokens = [(one.partition, one.token) for one in claimed]
        renewed = await renew(store, held, tokens)
        assert renewed == [True, True]
        (zero, one, *_) = (await held.leases("a").survey()).values()
        assert zero
        assert one
        assert zero[0] == one[0] == "a"
        assert min(zero[1], one[1]) > 60_000


async def test_renewal_does_not_steal_back(store: Store):
    async with unclaimed(store) as held:
        (old,) = await held.leases("a").claim([ZERO])
        await held.link.call("HSET", held.keys.lease(ZERO), "expiry", "1")
        (new,) = await held.leases("b").claim([ZERO])
        before = await lease(held)
        tokens = [(ZERO, old.token), (ONE, Token("1:none"))]
        renewed = await renew(store, held, tokens)
        assert renewed == [False, False]
        assert await lease(held) == before
        assert before["token"] == new.token
        assert await lease(held, ONE) == {}, "a lease that is gone is not made again"


async def test_lease_that_was_overwritten_is_lost_without_the_others(store: Store):
    async with unclaimed(store) as held:
        claimed = await held.leases("a", ttl_ms=1_000).claim([ZERO, ONE])
        await held.link.call("DEL", held.keys.lease(ZERO))
        await held.link.call("SET", held.keys.lease(ZERO), "mine")
        tokens = [(one.partition, one.token) for one in claimed]
        renewed = await renew(store, held, tokens)
        assert renewed == [False, True]
        assert int((await lease(held, ONE))["expiry"]) > 0


async def test_release_frees_the_lease_and_only_ones_own(store: Store):
    async with unclaimed(store) as held:
        (claimed,) = await held.leases("a").claim([ZERO])
        assert not await held.leases("a").release(ZERO, Token("1:other"))
        assert (await lease(held))["owner"] == "a"
        assert await held.leases("a").release(ZERO, claimed.token)
        assert not await held.leases("a").release(ZERO, claimed.token)
        found = await lease(held)
        assert (found["owner"], found["expiry"]) == ("", "0")
        assert "token" not in found
        (again,) = await held.leases("b").claim([ZERO])
        assert not again.is_unclean
        assert int(again.token.partition(":")[0]) > int(claimed.token.partition(":")[0])


async def test_released_partition_cannot_be_written_with_the_old_token(store: Store):
    async with unclaimed(store) as held:
        (claimed,) = await held.leases("a").claim([ZERO])
        await held.leases("a").release(ZERO, claimed.token)
        for token in (claimed.token, Token("")):
            assert await held.call(Emit(1, "", ScopeId("s"), [b"\x80"]), token=token) is None


async def test_release_and_leaving_are_announced(store: Store):
    async with unclaimed(store) as held:
        leases = held.leases("a")
        (claimed,) = await leases.claim([ZERO])
        subscription = await leases.listen()
        try:
            async with asyncio.timeout(5):
                await leases.release(ZERO, claimed.token)
                await subscription.next()
                await leases.leave()
                await subscription.next()
        finally:
            await subscription.aclose()


async def test_survey_tells_owner_and_time_left_of_all(store: Store):
    async with unclaimed(store) as held:
        await held.leases("a", ttl_ms=30_000).claim([ONE])
        survey = await held.leases("b").survey()
        assert list(survey) == [0, 1, 2, 3]
        owner, left_ms = survey.pop(ONE) or ("", 0)
        assert owner == "a"
        assert 0 < left_ms <= 30_000
        assert {one[0] for one in survey.values() if one is not None} == {""}
        await held.link.call("HSET", held.keys.lease(ONE), "expiry", "1")
        _, left_ms = (await held.leases("b").survey())[ONE] or ("", 0)
        assert left_ms < 0


async def test_members_are_told_in_order_of_joining_and_forgotten_when_silent(store: Store):
    async with unclaimed(store) as held:
        for worker in ("z", "a", "m"):
            beat = await held.leases(worker).beat({"host": worker}, 60_000)
            await until(lambda: is_later(held.link, beat.redis_ms))  # noqa: B023 - used at once
        assert list(beat.members) == ["z", "a", "m"]
        beat = await held.leases("z").beat({"host": "z"}, 60_000)
        assert list(beat.members) == ["z", "a", "m"], "who beats again keeps its place"
        await held.link.call("ZADD", held.keys.members, "1000", "a")
        beat = await held.leases("m").beat({}, 60_000)
        assert list(beat.members) == ["z", "m"]
        assert await held.link.call("ZSCORE", held.keys.joined, "a") is None
        await held.leases("z").leave()
        assert (await held.leases("m").beat({}, 60_000)).members.keys() == {"m"}


async def test_member_that_steps_out_lives_and_comes_in_as_the_last(store: Store):
    async with unclaimed(store) as held:
        one, two = held.leases("a"), held.leases("b")
        await one.beat({"n": "1"}, 60_000)
        before = (await two.beat({"n": "2"}, 60_000)).members
        assert (await one.beat({"n": "1"}, 60_000, Standing.OUT)).members == {"b": before["b"]}
        listed = await read_members(held.link, held.keys)
        assert [member.worker_id for member in listed] == ["b", "a"]
        await asyncio.sleep(0.003)
        assert list((await one.beat({}, 60_000)).members) == ["b", "a"]
        await asyncio.sleep(0.003)
        after = (await two.beat({}, 60_000, Standing.ANEW)).members
        assert list(after) == ["a", "b"]
        assert after["b"] > before["b"]


async def test_who_steps_out_is_heard_of_once(store: Store):
    async with unclaimed(store) as held:
        one = held.leases("a")
        await one.beat({}, 60_000)
        subscription = await held.leases("b").listen()
        async with asyncio.timeout(5):
            await one.beat({}, 60_000, Standing.OUT)
            await subscription.next()
            await one.beat({}, 60_000, Standing.OUT)
            (claimed,) = await one.claim([ONE])
            await one.release(ONE, claimed.token)
            await subscription.next()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await subscription.next()
        await subscription.aclose()


async def test_partition_whose_stream_is_something_else_is_claimed_all_the_same(store: Store):
    """Or a lease would be written that nobody knows of, or the others' shares would not add up."""
    async with unclaimed(store) as held:
        await held.link.call("DEL", held.keys.entries(ONE))
        await held.link.call("SET", held.keys.entries(ONE), "x")
        await held.link.call("SET", held.keys.attempts(ONE), "x")
        (claimed,) = await held.leases("a").claim([ONE])
        assert claimed.last_id == "0-0"
        assert await held.leases("a").attempts([ONE]) == [{}]


async def test_beat_tells_redis_time_and_describes_the_member(store: Store):
    async with unclaimed(store) as held:
        beat = await held.leases("a").beat({"host": "h", "pid": "1"}, 60_000)
        seconds, _ = await held.link.call("TIME")
        assert abs(beat.redis_ms / 1000 - int(seconds)) < 5
        (member,) = await read_members(held.link, held.keys)
        assert member.worker_id == "a"
        assert member.fields == {"host": "h", "pid": "1"}
        for key in (held.keys.members, held.keys.joined, held.keys.member("a")):
            assert await held.link.call("PTTL", key) > 0, key


async def test_beat_writes_the_meta_hash_again_and_tells_of_a_new_generation(store: Store):
    """Redis was flushed: whoever beats first keeps the partition count, and all notice."""
    async with unclaimed(store) as held:
        one, two = held.leases("a"), held.leases("b")
        assert (await one.beat({}, 60_000)).meta == held.meta
        await held.link.call("DEL", held.keys.meta)
        first = (await one.beat({}, 60_000)).meta
        assert first.partitions == held.meta.partitions
        assert first.generation != held.meta.generation
        assert (await two.beat({}, 60_000)).meta == first
        kept = await held.link.call("HGETALL", held.keys.meta)
        assert set(kept[::2]) == {b"generation", b"protocol_min", b"protocol_max", b"partitions"}
        await held.link.call("DEL", held.keys.meta)
        await held.link.call("HSET", held.keys.meta, "generation", "g", "partitions", "9")
        assert (await one.beat({}, 60_000)).meta == Meta(partitions=9, generation="g")


SPOILT = [
    ("SET", "x"),
    ("HSET", "expiry", "soon"),
    ("HSET", "epoch", "one"),
    ("HSET", "unclean", "often"),
]


@pytest.mark.parametrize("spoilt", SPOILT)
async def test_survey_tells_which_lease_was_overwritten_and_of_the_others(
    store: Store, spoilt: tuple[str, ...]
):
    async with unclaimed(store) as held:
        await held.leases("a").claim([ONE])
        command, *words = spoilt
        await held.link.call(command, held.keys.lease(ZERO), *words)
        survey = await held.leases("b").survey()
        assert survey.pop(ZERO) is None
        assert [found and found[0] for found in survey.values()] == ["a", "", ""]
        partitions = [Partition(number) for number in range(4)]
        zero, one, *_ = await read_partitions(held.link, held.scripts, held.keys, partitions)
        assert (zero.owner, zero.lease_ms, one.owner) == ("", 0, "a")


async def test_attempts_are_read_for_each_partition(store: Store):
    async with unclaimed(store) as held:
        await held.link.call("HSET", held.keys.attempts(ONE), "1-1", "row", "2-2", "other")
        rows = await held.leases("a").attempts([ZERO, ONE])
        assert rows == [{}, {"1-1": b"row", "2-2": b"other"}]


async def test_partitions_are_described(store: Store):
    async with unclaimed(store) as held:
        await held.leases("a").claim([ONE])
        await held.add()
        await held.add()
        await held.link.call("XADD", held.keys.dead(ONE), "*", "a", "b")
        partitions = [Partition(number) for number in range(4)]
        zero, one, *_ = await read_partitions(held.link, held.scripts, held.keys, partitions)
        assert (zero.owner, zero.backlog, zero.dead, zero.lease_ms) == ("", 2, 0, 0)
        assert (one.owner, one.backlog, one.dead) == ("a", 0, 1)
        assert one.lease_ms > 0
