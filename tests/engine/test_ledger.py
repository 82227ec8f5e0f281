"""The ledger: entries in hand, and tombstones of those that are finished."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
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
        book.take({ONE: 1, TWO: 1}, TWO)


def test_a_batch_is_taken_in_hand_at_once():
    book = ledger()
    book.hold(ONE, 10)
    book.take({TWO: 5, EntryId("3-0"): 7}, EntryId("3-0"))
    book.take({}, EntryId("4-0"))
    assert (book.in_flight, book.in_flight_bytes, book.cursor) == (3, 22, "4-0")
    book.finish([TWO, EntryId("3-0")], 0, 0)
    assert (book.in_flight, book.in_flight_bytes) == (1, 10)
    book.finish([TWO], 0, 0)
    assert (book.in_flight, book.in_flight_bytes) == (1, 10)


def read_anew() -> Ledger:
    """One that was at an entry which nothing below comes to."""
    book = ledger()
    book.take({}, EntryId("999-0"))
    book.rewind()
    return book


def test_tombstone_stays_while_a_read_sent_before_is_unanswered():
    book = read_anew()
    book.hold(ONE, 1)
    book.finish([ONE], reads_sent=5, reads_answered=4)
    assert book.knows(ONE)
    book.answered(4)
    assert book.knows(ONE)
    book.answered(5)
    assert not book.knows(ONE)


def test_without_a_read_under_way_there_is_no_tombstone():
    book = read_anew()
    book.hold(ONE, 1)
    book.finish([ONE], reads_sent=5, reads_answered=5)
    assert not book.knows(ONE)


def test_where_reading_goes_on_there_is_no_tombstone():
    book = ledger()
    book.take({ONE: 1}, ONE)
    book.finish([ONE], reads_sent=5, reads_answered=4)
    assert not book.knows(ONE)


def test_what_is_forgotten_is_read_again():
    book = ledger()
    book.hold(ONE, 1)
    book.forget(ONE)
    assert not book.knows(ONE)


def test_rewinding_starts_from_the_beginning_and_outdates_reads_under_way():
    book = ledger()
    book.take({}, TWO)
    before = book.rewinds
    book.rewind()
    assert book.cursor == ORIGIN
    assert book.rewinds != before


def test_a_stream_is_read_anew_until_reading_is_where_it_was():
    book = ledger()
    assert not book.is_read_anew
    book.take({}, EntryId("10-0"))
    assert not book.is_read_anew
    book.rewind()
    assert book.is_read_anew
    book.take({}, EntryId("9-0"))  # ids do not sort as text
    assert book.is_read_anew
    book.rewind()
    book.take({}, EntryId("9-1"))
    assert book.is_read_anew
    book.take({}, EntryId("10-0"))
    assert not book.is_read_anew


class Story:
    """Reads and commits on two connections: each is sent, carried out, and answered later."""

    def __init__(self, count: int) -> None:
        self.book, self.count, self.last = ledger(), count, 0
        self.stream: list[EntryId] = []
        self.committed: list[EntryId] = []  # and not acknowledged yet
        self.finished: set[EntryId] = set()
        self.sent = self.answered = self.rewinds = 0
        self.cursor = ORIGIN
        self.found: list[EntryId] | None = None

    def steps(self) -> list[str]:
        """What can happen now."""
        reading = (
            "send" if self.sent == self.answered else "run" if self.found is None else "answer"
        )
        is_uncommitted = any(one not in self.committed for one in self.book.held)
        rest = ["commit"] * is_uncommitted + ["acknowledge"] * bool(self.committed)
        return ["append", reading, reading, *rest * 2, "rewind"]

    def append(self) -> None:
        self.last += 1
        self.stream.append(EntryId(f"{self.last}-0"))

    def send(self) -> None:
        self.sent += 1
        self.cursor, self.rewinds = self.book.cursor, self.book.rewinds

    def run(self) -> None:
        behind = [one for one in self.stream if id_key(one) > id_key(self.cursor)]
        self.found = behind[: self.count]

    def answer(self) -> None:
        found, self.found, self.answered = self.found, None, self.sent
        if found and self.rewinds == self.book.rewinds:
            new = {one: 1 for one in found if not self.book.knows(one)}
            assert not self.finished & new.keys()
            self.book.take(new, found[-1])
        self.book.answered(self.answered)

    def commit(self) -> None:
        *_, entry_id = [one for one in self.book.held if one not in self.committed]
        self.committed.append(entry_id)
        self.stream.remove(entry_id)

    def acknowledge(self) -> None:
        self.finished.add(entry_id := self.committed.pop(0))
        self.book.finish([entry_id], self.sent, self.answered)

    def rewind(self) -> None:
        self.book.rewind()


READ, FINISH = "send run answer ", "commit acknowledge "
BOTH_IN_HAND = "append append " + 2 * READ


@pytest.mark.parametrize(
    "steps",
    [
        BOTH_IN_HAND + "rewind send run " + FINISH + "answer",
        BOTH_IN_HAND + "rewind " + READ + "send run " + FINISH + "answer",
        BOTH_IN_HAND + "rewind " + READ + "rewind " + READ + "send run " + FINISH + "answer",
    ],
)
def test_entry_that_is_finished_while_a_read_brings_it_is_not_taken_again(steps: str):
    """Each read brings one entry; the last in hand is finished first."""
    story = Story(1)
    for step in steps.split():
        assert step in story.steps()
        getattr(story, step)()


@settings(max_examples=1000)
@given(st.lists(st.integers(0, 59), min_size=30, max_size=60), st.integers(1, 3))
def test_no_entry_is_taken_in_hand_after_it_was_finished(choices: list[int], count: int):
    story = Story(count)
    for choice in choices:
        steps = story.steps()
        getattr(story, steps[choice % len(steps)])()


@given(st.lists(st.sampled_from(["finish", "send", "answer"]), max_size=60))
def test_no_tombstone_outlives_the_reads_that_need_it(steps: list[str]):
    book, sent, answered, number = read_anew(), 0, 0, 0
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
