"""Which node a command goes to, and what a cluster's nodes tell about that."""

from __future__ import annotations

from typing import Any

import pytest
from redis.crc import key_slot

from wherry.broker.cluster_past import ClusterPast
from wherry.broker.mapping import map_answer
from wherry.broker.redirects import Redirected, is_try_again
from wherry.broker.routing import key_of, plan_units
from wherry.broker.slots import SLOTS, Shard, SlotMap, read_slots, slot_of
from wherry.broker.topology import Topology
from wherry.broker.urls import parse_url
from wherry.broker.wire import Keys
from wherry.model import Partition

A, B, C = ("a", 1), ("b", 2), ("c", 3)


@pytest.mark.parametrize(
    "key", ["foo", "{foo}:bar", "{}foo", "a{", "a{b", "a{}{b}", "{wherry:12}:out:ö", "", "{a}{b}"]
)
def test_slot_is_that_of_the_hash_tag(key: str):
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


def test_keys_of_a_partition_share_a_slot_and_partitions_are_spread():
    keys = Keys("wherry")
    slots: set[int] = set()
    for number in range(64):
        p = Partition(number)
        names = [keys.entries(p), keys.lease(p), keys.attempts(p), keys.dead(p)]
        names += [
            keys.replies(p, "s}{x"),
            keys.inbox(p, "i"),
            keys.state(p, "s"),
            keys.sent(p, "m"),
        ]
        (slot,) = {slot_of(one) for one in names}
        slots.add(slot)
    assert len(slots) == 64
    assert len({slot * 3 // SLOTS for slot in slots}) == 3
    about = (keys.meta, keys.members, keys.joined, keys.member("w"), keys.released, keys.control)
    assert len({slot_of(one) for one in about}) == 1


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("HGET", "k", "f"), "k"),
        (("EVALSHA", "0" * 40, 2, "k", "l", "x"), "k"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", "COUNT", 1, "BLOCK", 5, "STREAMS", "k", "l", "0-0", "0-0"), "k"),
        (("XINFO", "STREAM", "k"), "k"),
        (("PUBLISH", "channel", "x"), "channel"),
        (("TIME",), None),
        (("CLIENT", "UNBLOCK", 7), None),
        (("SCAN", 0, "MATCH", "*"), None),
    ],
)
def test_first_key_of_a_command_is_found(command: Any, key: str | None):
    assert key_of(command) == key


def test_command_without_a_key_goes_where_those_around_it_go():
    a, b = slot_of("a"), slot_of("b")
    units, everywhere = plan_units(
        [("TIME",), ("GET", "a"), ("PING",), ("GET", "b"), ("TIME",), ("WAIT", 1, 5)]
    )
    assert [(one.indexes, one.slot) for one in units] == [
        ([0], a), ([1], a), ([2], a), ([3], b), ([4], b),
    ]  # fmt: skip
    assert everywhere == [5]


def test_transaction_stays_together():
    commands = [("MULTI",), ("TIME",), ("GET", "b"), ("EXEC",), ("GET", "a")]
    units, _ = plan_units(commands)
    assert [(one.indexes, one.slot) for one in units] == [
        ([0, 1, 2, 3], slot_of("b")), ([4], slot_of("a")),
    ]  # fmt: skip


def test_map_says_who_serves_a_slot():
    found = SlotMap([Shard(10, 20, B), Shard(0, 9, A, (C,)), Shard(30, 40, A)])
    assert [found.place_of(slot) for slot in (0, 9, 10, 20, 21, 29, 30, 41)] == [
        A, A, B, B, None, None, A, None,
    ]  # fmt: skip
    assert found.primaries == (A, B)
    assert found.places == (A, B, C)


def test_node_that_does_not_know_its_address_is_where_it_was_asked():
    answer = [
        [0, 99, [b"", 7000, b"id"], [b"other", 7001, b"id2", []]],
        [100, 199, [None, 7002, b"id3"]],
    ]
    found = read_slots(answer, ("asked", 1))
    assert found.shards == (
        Shard(0, 99, ("asked", 7000), (("other", 7001),)),
        Shard(100, 199, ("asked", 7002)),
    )


def test_redirects_are_told_apart():
    moved = map_answer("MOVED 3999 10.0.0.1:6381", "here")
    assert isinstance(moved, Redirected)
    assert (moved.slot, moved.place(A), moved.is_ask) == (3999, ("10.0.0.1", 6381), False)
    ask = map_answer("ASK 1 :6382", "here")
    assert isinstance(ask, Redirected)
    assert (ask.place(A), ask.is_ask) == (("a", 6382), True)
    six = map_answer("MOVED 1 ::1:6383", "here")
    assert isinstance(six, Redirected)
    assert six.place(A) == ("::1", 6383)
    assert is_try_again(map_answer("TRYAGAIN Multiple keys request during rehashing", "here"))
    assert not is_try_again(map_answer("CLUSTERDOWN Hash slot not served", "here"))


class Pasts:
    """The past of a worker on three nodes, the first of which serves slots 1 and 2."""

    def __init__(self) -> None:
        self.topology = Topology(parse_url("redis+cluster://a:1"))
        self.past = ClusterPast(self.topology)
        self.told: list[int] = []
        self.past.on_other = self.told.extend
        for place, history in ((A, "ra pa 0"), (B, "rb pb 0")):
            self.past.met(place, history)
        assert not self.past.check([1, 2], A, "ra pa 0")


def test_slot_that_its_owner_has_given_away_has_lost_nothing():
    pasts = Pasts()
    pasts.topology.note_moved(1, A, B)
    assert not pasts.past.check([1], B, "rb pb 0")
    assert not pasts.told


def test_call_that_was_addressed_before_its_slot_was_given_away_tells_of_no_loss():
    pasts = Pasts()
    pasts.topology.note_moved(1, A, B)
    assert not pasts.past.check([1], B, "rb pb 0")
    assert not pasts.past.check([1], A, "ra pa 0"), "by another link, which was not told yet"
    assert not pasts.past.check([1], B, "rb pb 0")
    assert not pasts.told


def test_slot_at_another_node_of_which_its_owner_said_nothing_may_have_lost_something():
    pasts = Pasts()
    assert pasts.past.check([1], B, "rb pb 0") == [1]
    assert pasts.told == [1]
    assert not pasts.past.check([1], B, "rb pb 0"), "it is told once"


def test_replica_that_took_over_may_lack_something():
    """Also if the former primary, back as a replica, says itself where the slots are."""
    pasts = Pasts()
    pasts.topology.note_moved(1, A, C)
    pasts.past.met(C, "rc pc pa")
    assert pasts.past.check([1, 2], C, "rc pc pa") == [1, 2]
    assert pasts.told == [1, 2]


def test_node_that_was_restarted_concerns_its_own_slots_only():
    pasts = Pasts()
    assert not pasts.past.check([3], B, "rb pb 0")
    pasts.past.met(A, "ra2 pa2 0")
    assert pasts.told == [1, 2]
    assert not pasts.past.check([1, 2], A, "ra2 pa2 0"), "it is told once"


def test_word_of_a_node_that_was_restarted_since_is_no_proof():
    pasts = Pasts()
    pasts.past.check([5], A, "ra pa 0")
    pasts.past.met(A, "ra2 pa2 0")
    pasts.told.clear()
    pasts.past.check([6], A, "ra2 pa2 0")
    pasts.topology.note_moved(6, B, C)
    pasts.past.met(C, "rc pc 0")
    assert pasts.past.check([6], C, "rc pc 0") == [6], "the one that told it never had the slot"


def test_listeners_hear_of_slots_that_moved():
    topology = Topology(parse_url("redis+cluster://a:1"))
    heard: list[int] = []
    end = topology.listen(lambda: heard.append(1))
    topology.note_moved(7, A, B)
    topology.note_moved(7, A, B)
    assert len(heard) == 1
    end()
    topology.note_moved(7, B, A)
    assert len(heard) == 1
    assert topology.place_of(7) == A
