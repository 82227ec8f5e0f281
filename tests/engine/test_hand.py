"""What partitions have in hand together is what each of them has, whatever happens."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from wherry.engine.deferred import Deferred
from wherry.engine.hand import Hand
from wherry.engine.ledger import Ledger
from wherry.model import EntryId, Partition, ScopeId, Token

STEPS = ("hold", "hold all", "finish", "forget", "answer", "defer", "give back", "take", "clear")
SCOPE = ScopeId("s")


def ledger(number: int = 0) -> Ledger:
    return Ledger(partition=Partition(number), token=Token("1:a"))


class Shares:
    """Two partitions; one of them may leave the hand."""

    def __init__(self) -> None:
        self.hand, self.elsewhere = Hand(), Hand()
        self.ledgers = [ledger(0), ledger(1)]
        self.deferred = [Deferred(), Deferred()]
        for one in (*self.ledgers, *self.deferred):
            one.join(self.hand)
        self.last = 0

    def step(self, what: str, which: int) -> None:
        book, waiting = self.ledgers[which], self.deferred[which]
        self.last += 1
        entry_id = EntryId(f"{self.last}-0")
        if what == "hold":
            book.hold(entry_id, 3)
        elif what == "hold all":
            book.take({entry_id: 5, EntryId(f"{self.last}-1"): 7}, entry_id)
        elif what == "finish":
            book.finish([*book.held][:2], reads_sent=self.last, reads_answered=self.last - 1)
        elif what == "forget":
            book.forget(next(iter(book.held), entry_id))
        elif what == "answer":
            book.answered(self.last)
        elif what == "defer":
            waiting.add(SCOPE, entry_id)
        elif what == "give back":
            waiting.give_back(SCOPE, [entry_id, entry_id])
        elif what == "take":
            waiting.take(SCOPE, 2)
        else:
            waiting.clear()

    def check(self, hand: Hand, numbers: list[int]) -> None:
        books = [self.ledgers[number] for number in numbers]
        assert hand.entries == sum(len(one.held) for one in books)
        assert hand.size_bytes == sum(sum(one.held.values()) for one in books)
        assert hand.deferred == sum(self.deferred[number].count for number in numbers)
        assert {*hand.with_tombstones} == {one for one in books if one.tombstones}


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.booleans()), max_size=40), st.booleans())
@example([("hold", True), ("finish", True)], True)
@example([("hold", True), ("finish", True), ("answer", True)], False)
def test_sums_are_those_of_the_partitions(steps: list[tuple[str, bool]], leaves: bool):
    shares = Shares()
    for what, which in steps:
        shares.step(what, int(which))
        shares.check(shares.hand, [0, 1])
    if leaves:
        shares.ledgers[1].join(shares.elsewhere)
        shares.deferred[1].join(shares.elsewhere)
        shares.step("hold", 1)
        shares.check(shares.hand, [0])
        shares.check(shares.elsewhere, [1])


def test_what_is_to_be_read_from_where_has_changed():
    book, hand = ledger(), Hand()
    seen: list[int] = []
    book.join(hand)
    seen.append(hand.changes)
    book.rewind()
    seen.append(hand.changes)
    book.drain()
    seen.append(hand.changes)
    book.mark(is_unreadable=True)
    seen.append(hand.changes)
    book.join(Hand())
    seen.append(hand.changes)
    assert sorted({0, *seen}) == [0, *seen], "each step counts"
    assert book.is_draining
    assert book.is_unreadable
