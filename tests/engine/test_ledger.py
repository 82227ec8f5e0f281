"""The ledger: entries in hand, and tombstones of those that are finished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.ledger import Ledger
from wherry.model import ORIGIN, EntryId, Partition, Token, id_key

ONE, TWO = EntryId("1-0"), EntryId("2-0")


def ledger() -> Ledger:
    return Ledger(partition=Partition(0), token=Token("7:abc"))


def test_entries_in_hand_are_counted():
    book = ledger()
    book.hold(ONE, 10)
    book.hold(TWO, 5)
    assert (book.in_flight, book.in_flight_bytes, book.epoch) == (2, 15, "7")
    book.finish([ONE], 0, 0)
    assert (book.in_flight, book.in_flight_bytes) == (1, 5)
    book.forget(TWO)
    book.forget(TWO)
    assert (book.in_flight, book.in_flight_bytes) == (0, 0)


def test_entry_is_not_held_twice():
    book = ledger()
    book.hold(ONE, 1)
    with pytest.raises(AssertionError):
        book.hold(ONE, 1)
    with pytest.raises(AssertionError):
        book.hold_all({ONE: 1, TWO: 1})


def test_a_batch_is_taken_in_hand_at_once():
    book = ledger()
    book.hold(ONE, 10)
    book.hold_all({TWO: 5, EntryId("3-0"): 7})
    book.hold_all({})
    assert (book.in_flight, book.in_flight_bytes) == (3, 22)
    book.finish([TWO, EntryId("3-0")], 0, 0)
    assert (book.in_flight, book.in_flight_bytes) == (1, 10)
    book.finish([TWO], 0, 0)
    assert (book.in_flight, book.in_flight_bytes) == (1, 10)


def test_tombstone_stays_while_a_read_sent_before_is_unanswered():
    book = ledger()
    book.hold(ONE, 1)
    book.finish([ONE], reads_sent=5, reads_answered=4)
    assert book.knows(ONE)
    book.answered(4)
    assert book.knows(ONE)
    book.answered(5)
    assert not book.knows(ONE)


def test_without_a_read_under_way_there_is_no_tombstone():
    book = ledger()
    book.hold(ONE, 1)
    book.finish([ONE], reads_sent=5, reads_answered=5)
    assert not book.knows(ONE)


def test_what_is_forgotten_is_read_again():
    book = ledger()
    book.hold(ONE, 1)
    book.forget(ONE)
    assert not book.knows(ONE)


def test_rewinding_starts_from_the_beginning_and_outdates_reads_under_way():
    book = ledger()
    book.advance(TWO)
    before = book.rewinds
    book.rewind()
    assert book.cursor == ORIGIN
    assert book.rewinds != before


def test_ids_do_not_sort_as_text():
    assert id_key("9-10") < id_key("10-9") < id_key("10-10")
    book = ledger()
    book.advance(EntryId("9-0"))
    assert book.is_behind(EntryId("10-0"))
    assert not book.is_behind(EntryId("9-0"))


@given(st.lists(st.sampled_from(["finish", "send", "answer"]), max_size=60))
def test_no_tombstone_outlives_the_reads_that_need_it(steps: list[str]):
    book, sent, answered, number = ledger(), 0, 0, 0
    needed: dict[EntryId, int] = {}
    for step in steps:
        if step == "finish":
            number += 1
            entry_id = EntryId(f"{number}-0")
            book.hold(entry_id, 1)
            book.finish([entry_id], sent, answered)
            if sent > answered:
                needed[entry_id] = sent
        elif step == "send" and sent == answered:
            sent += 1
        elif step == "answer" and sent > answered:
            answered += 1
            book.answered(answered)
            needed = {one: read for one, read in needed.items() if read > answered}
        for one in range(1, number + 1):
            assert book.knows(EntryId(f"{one}-0")) == (EntryId(f"{one}-0") in needed)
