"""The router: in the order of the stream, as far as there is room, and each entry once."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from wherry import Config
from wherry.engine.ledger import Ledger
from wherry.hooks import Hooks
from wherry.model import ORIGIN, EntryId, Partition, ScopeId, Token
from wherry.runtime.clock import Clock
from wherry.runtime.delivery import Delivery
from wherry.runtime.holding import Holding
from wherry.runtime.lane import Lane
from wherry.runtime.router import Router
from wherry.runtime.window import Room


class Face:
    """Makes a lane for each scope but "broken"; nothing of it runs."""

    def __init__(self, holding: Holding) -> None:
        self.holding = holding

    def get_or_create_application_instance(self, scope_id: Any, scope: Any) -> Any:
        if scope_id == "broken":
            raise ZeroDivisionError
        host: Any = self
        lane = self.holding.track(ScopeId(scope_id)).lane = Lane(host, scope_id, scope, 0.0)
        return lane.input_queue

    def queued(self, lane: Lane) -> None:
        pass


class Route:
    """A router, and a partition that it routes."""

    def __init__(self, **config: Any) -> None:
        self.config = Config(**config)
        ledger = Ledger(partition=Partition(0), token=Token("1:x"))
        self.holding = Holding(ledger, ORIGIN)
        face: Any = Face(self.holding)
        committer: Any = None
        self.router = Router(self.config, face, committer, Clock(), Hooks())

    def __call__(self, *entries: tuple[int, str], room: Room | None = None) -> bool:
        body = msgpack.packb({"type": "t"})
        raw = [(f"{n}-0".encode(), [b"s", scope.encode(), b"m", body]) for n, scope in entries]
        return self.router.route(self.holding, raw, room or Room(100, 10_000))

    def waiting(self, scope: str) -> list[str]:
        lane = self.holding.track(ScopeId(scope)).lane
        assert lane is not None
        return [one.entry.id for one in lane.input_queue.items if isinstance(one, Delivery)]


def test_each_scope_gets_its_entries_in_order_and_the_ledger_all_of_them():
    route, room = Route(), Room(10, 1_000)
    assert route((1, "a"), (2, "b"), room=room)
    assert route((3, "a"), (4, "a"), (5, "b"), room=room)
    assert (route.waiting("a"), route.waiting("b")) == (["1-0", "3-0", "4-0"], ["2-0", "5-0"])
    ledger = route.holding.ledger
    assert (ledger.cursor, ledger.in_flight) == ("5-0", 5)
    assert list(ledger.held) == ["1-0", "2-0", "3-0", "4-0", "5-0"]
    assert (room.entries, room.size_bytes) == (5, 1_000 - ledger.in_flight_bytes)


@pytest.mark.parametrize("room", [Room(2, 10_000), Room(100, 12)])
def test_what_there_is_no_room_for_is_left_to_the_next_read(room: Room):
    route = Route()
    assert route((1, "a"))
    assert not route((2, "a"), (3, "a"), (4, "a"), room=room)
    assert route.waiting("a") == ["1-0", "2-0", "3-0"]
    assert (route.holding.ledger.cursor, route.holding.ledger.in_flight) == ("3-0", 3)
    assert not room.is_left


def test_what_is_in_hand_is_not_taken_again():
    route = Route()
    assert route((1, "a"), (2, "a"))
    route.holding.ledger.rewind()
    assert route((1, "a"), (2, "a"), (3, "a"))
    assert route.waiting("a") == ["1-0", "2-0", "3-0"]


def test_beyond_the_cap_of_a_scope_only_ids_are_kept_and_others_go_on():
    route = Route(scope_waiting=2)
    assert route((1, "hot"), (2, "hot"), (3, "hot"), (4, "hot"), (5, "cold"), (6, "cold"))
    assert (route.waiting("hot"), route.waiting("cold")) == (["1-0", "2-0"], ["5-0", "6-0"])
    lane = route.holding.track(ScopeId("hot")).lane
    assert lane is not None
    lane.input_queue.drain()
    assert route((7, "hot"), (8, "cold"))
    assert route.waiting("hot") == [], "those before it are fetched first"
    assert list(route.holding.deferred.take(ScopeId("hot"), 9)) == ["3-0", "4-0", "7-0"]
    route.holding.track(ScopeId("hot")).refilling = [EntryId("3-0")]
    assert route((9, "hot"))
    assert route.waiting("hot") == []


def test_what_was_taken_before_an_error_is_in_hand():
    route = Route()
    assert route((1, "a"))
    with pytest.raises(ZeroDivisionError):
        route((2, "a"), (3, "broken"), (4, "a"))
    assert route.waiting("a") == ["1-0", "2-0"]
    assert route.holding.ledger.knows(EntryId("2-0"))
    assert not route.holding.ledger.knows(EntryId("4-0"))
