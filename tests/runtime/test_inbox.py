"""The inbox: a queue that is never read by nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.runtime.inbox import Inbox


class Sleeper:
    """Owns an inbox, and counts what it finds in it whenever it is woken."""

    def __init__(self) -> None:
        self.inbox = Inbox(self)
        self.found: list[int] = []

    def wake(self) -> None:
        self.found.append(len(self.inbox))


def filled(*items: Any) -> Inbox:
    inbox = Sleeper().inbox
    for item in items:
        inbox.put_nowait(item)
    return inbox


def test_what_is_put_where_nothing_was_wakes():
    sleeper = Sleeper()
    inbox = sleeper.inbox
    inbox.put_nowait("a")
    inbox.put_nowait("b")
    inbox.drain()
    inbox.put_nowait("c")
    assert sleeper.found == [1, 1]


def test_items_come_out_in_order_and_what_is_put_back_first():
    inbox = filled("a", "b")
    first = inbox.take()
    inbox.put_back(first)
    assert inbox.peek() == "a"
    assert [inbox.take(), inbox.take()] == ["a", "b"]
    assert inbox.peek() is None
    with pytest.raises(IndexError):
        inbox.take()
    with pytest.raises(asyncio.QueueEmpty):
        inbox.get_nowait()


def test_what_is_put_after_the_end_goes_on_and_wakes_nobody():
    sleeper = Sleeper()
    inbox = sleeper.inbox
    later: list[Any] = []
    inbox.forward(later.append)
    inbox.put_nowait("late")
    asyncio.run(inbox.put("later"))
    assert later == ["late", "later"]
    assert sleeper.found == []
    inbox = filled("waits")
    inbox.forward(later.append)
    assert inbox.drain() == ["waits"]
    assert inbox.drain() == []


def test_taking_an_item_forgets_who_passed_it_by():
    inbox = filled("a", "b")
    inbox.passes = 2
    heir = filled("c")
    heir.inherit(inbox)
    assert heir.passes == 2
    assert [heir.take(), heir.take(), heir.take()] == ["a", "b", "c"]
    assert heir.passes == 0
    assert inbox.empty()


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=5))
def test_inheritance_keeps_the_order(generations: list[list[int]]):
    """The newest inbox inherits from the one before it, and that one's messages are older."""
    heir = filled()
    for generation in reversed(generations):
        heir.inherit(filled(*generation))
    assert heir.drain() == [item for generation in generations for item in generation]
