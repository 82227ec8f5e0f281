"""A blocking read is cut short when it leaves a partition out, also where CLIENT is forbidden."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from tests.e2e.rig import until
from wherry import Config
from wherry.engine.bursts import AT_ONCE_S, FEW
from wherry.engine.gathering import ENOUGH, WINDOW_S, Usage
from wherry.engine.ledger import Ledger
from wherry.engine.portions import LEAST, MANY, PORTION
from wherry.hooks import Hooks
from wherry.model import ORIGIN, EntryId, Partition, Token
from wherry.runtime.holding import Holding, Holdings
from wherry.runtime.reader import ANSWER_WITHIN_S, TRICKLE, Reader
from wherry.testing.loop import VirtualLoop


class DeafLink:
    """Never answers, may not be unblocked, and takes its time to close its connection."""

    client_id = None
    connects = 0

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.closing = asyncio.Event()
        self.closed = asyncio.Event()

    async def call(self, *command: Any) -> Any:
        self.asked.append(command)
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.closing.set()
            await self.closed.wait()
            raise


def at_ease() -> Usage:
    """Of a thread that gets a core whenever it wants one."""
    return Usage(0.0, 0.0)


class OpenGate:
    def is_shut(self) -> bool:
        return False

    def is_settling(self) -> bool:
        return False

    def has_room(self) -> bool:
        return True

    async def answered(self, within_s: float) -> None:
        """Nothing is under way."""


class NoRouter:
    def route(self, holding: Any, raw: Any) -> None:
        raise AssertionError("nothing was answered")


def holding(number: int) -> Holding:
    return Holding(Ledger(partition=Partition(number), token=Token("1:x")), ORIGIN)


def streams(command: tuple[Any, ...]) -> int:
    return (len(command) - command.index("STREAMS") - 1) // 2


async def test_a_read_that_is_being_closed_is_not_cut_short_again():
    link, holdings = DeafLink(), Holdings()
    links: Any = (link, link)
    router: Any = NoRouter()
    holdings.add(holding(0))
    reader = Reader(links, Config(), holdings, router, OpenGate(), Hooks(), at_ease)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.run())
        await until(lambda: link.asked)
        holdings.add(holding(1))
        await link.closing.wait()
        for number in (2, 3, 4):
            holdings.add(holding(number))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not reading.done()
        link.closed.set()
        await until(lambda: len(link.asked) == 2)
        assert [streams(command) for command in link.asked] == [1, 5]
        reading.cancel()


class SlowLink(DeafLink):
    """Answers reads when it is told to, and CLIENT UNBLOCK never."""

    client_id: int | None = 7

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[asyncio.Future[Any]] = []

    async def call(self, *command: Any) -> Any:
        self.asked.append(command)
        answer = asyncio.get_running_loop().create_future()
        if command[0] == "XREAD":
            self.reads.append(answer)
        return await answer


class Reading(NamedTuple):
    """A reader at its first read, and what is around it."""

    loop: VirtualLoop
    link: SlowLink
    holdings: Holdings

    def answer(self, count: int, entries: Callable[[int], list[Any]]) -> None:
        """Bring so many entries, and let everybody have their turns."""
        self.link.reads[-1].set_result(entries(count))
        self.loop.settle()


@contextmanager
def reading(
    router: Any,
    partitions: int = 1,
    *,
    gate: OpenGate | None = None,
    is_crowded: bool = False,
    gather_s: float = 0.04,
) -> Generator[Reading]:
    """On virtual time; where it is crowded, as long as it runs it waits for a core."""
    loop = VirtualLoop(patience_s=1.0)
    link, holdings = SlowLink(), Holdings()
    links: Any = (link, link)
    for number in range(partitions):
        holdings.add(holding(number))

    def usage() -> Usage:
        return Usage(ran_s=loop.time(), waited_s=loop.time()) if is_crowded else at_ease()

    config = Config(gather_s=gather_s)
    reader = Reader(links, config, holdings, router, gate or OpenGate(), Hooks(), usage)
    try:
        loop.start(reader.run(), name="reader", group="")
        loop.run_until(lambda: bool(link.reads), 1.0)
        yield Reading(loop, link, holdings)
    finally:
        loop.finish()


def test_reader_rests_while_a_request_to_unblock_is_unanswered():
    """The watch waits for that answer and clears no event; the reader must not spin meanwhile."""
    with reading(NoRouter()) as it:
        it.holdings.add(holding(1))
        it.loop.settle()
        assert it.link.asked[-1] == ("CLIENT", "UNBLOCK", 7)
        it.link.reads[0].set_result(None)
        for one in it.holdings.all():
            one.ledger.drain()
        it.holdings.changed.set()
        it.loop.settle()  # raises if it never rests


class Settling(OpenGate):
    """Commits are under way all the time."""

    def is_settling(self) -> bool:
        return True


class AnyRouter:
    def route(self, holding: Any, raw: Any, room: Any) -> bool:
        return True


def entries(count: int) -> list[Any]:
    fields = [(b"%d-0" % (number + 1), [b"s", b"scope", b"m", b""]) for number in range(count)]
    return [(b"{wherry:0}:in", fields)]


@pytest.mark.parametrize(
    ("count", "passes_s", "reads"),
    [(1, 0.0, 2), (FEW, 0.0, 1), (FEW, 1.0, 2), (TRICKLE, 0.0, 2)],
)
def test_a_few_entries_are_answered_before_more_are_read(count: int, passes_s: float, reads: int):
    """What comes meanwhile is brought by one read; but no answer is waited for in vain."""
    with reading(AnyRouter(), gate=Settling()) as it:
        it.answer(count, entries)
        if passes_s:
            it.loop.advance(passes_s)
        assert len(it.link.reads) == reads
        it.holdings.changed.set()
        it.loop.settle()
        assert len(it.link.reads) == 2


class Noting:
    """Notes how many entries it is given at a time."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def route(self, holding: Holding, raw: Any, room: Any) -> bool:
        self.given.append(len(raw))
        holding.ledger.take({}, EntryId(raw[-1][0].decode()))
        return True


class ByTurn(Noting):
    """Notes how many entries it is given before others have a turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[int] = []
        self.after = self.turn

    def route(self, holding: Holding, raw: Any, room: Any) -> bool:
        if not self.given:
            asyncio.get_running_loop().call_soon(self.after)
        return super().route(holding, raw, room)

    def turn(self) -> None:
        self.turns.append(sum(self.given))
        self.given.clear()


def spread(count: int) -> list[Any]:
    """So many entries, four of each partition."""
    [(_, four)] = entries(4)
    return [(b"{wherry:%d}:in" % number, four) for number in range(count // 4)]


@pytest.mark.parametrize(
    ("count", "is_anew", "turns"),
    [
        (PORTION, False, [PORTION]),
        (3 * PORTION, False, [PORTION] * 3),
        (3 * PORTION, True, [3 * PORTION]),
        (MANY, False, [MANY]),
    ],
)
def test_effects_of_a_portion_are_sent_before_the_next_is_handled(
    count: int, is_anew: bool, turns: list[int]
):
    """But not where one of the later ones may be in hand, and be finished meanwhile."""
    router = ByTurn()
    with reading(router, MANY // 4) as it:
        it.holdings.all()[count // 4 - 1].ledger.is_read_anew = is_anew
        it.answer(count, spread)
        assert router.turns == turns
        assert len(it.link.reads) == 2


BETWEEN: dict[str, Callable[[Holding, Holdings], None]] = {
    "is lost": lambda one, holdings: holdings.remove(one),
    "drains": lambda one, _: one.ledger.drain(),
    "is read anew": lambda one, _: one.ledger.rewind(),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_partition_that_changes_between_two_portions_gets_nothing_of_the_later_ones(what: str):
    router = ByTurn()
    with reading(router, PORTION // 2) as it:
        *others, last = it.holdings.all()

        def change() -> None:
            router.turn()
            if len(router.turns) == 1:
                BETWEEN[what](last, it.holdings)

        router.after = change
        it.answer(2 * PORTION, spread)
        assert router.turns == [PORTION, PORTION - 4]
        cursors = {one.ledger.cursor for one in others}
        assert cursors == {"4-0"}, "nothing else is read anew for that"


def test_read_that_is_answered_is_not_cut_short_between_two_portions():
    """Not even where the answer came in the moment in which it was to be."""
    router = ByTurn()
    with reading(router, PORTION // 2) as it:
        it.link.client_id = None  # CLIENT is forbidden
        it.holdings.add(holding(PORTION))
        it.answer(2 * PORTION, spread)
        assert router.turns == [PORTION, PORTION]
        assert not any(one.ledger.rewinds for one in it.holdings.all())


class FullRouter(AnyRouter):
    def route(self, holding: Any, raw: Any, room: Any) -> bool:
        return False


def test_of_all_portions_it_is_known_who_has_more():
    with reading(FullRouter(), PORTION // 2 + 1) as it:
        it.answer(2 * PORTION, spread)
        asked = it.link.asked[1]
        first = asked[asked.index("STREAMS") + 1]
        assert first == f"{{wherry:{PORTION // 2}}}:in", "it alone was quiet"


def test_reading_goes_on_while_several_portions_are_under_way():
    """Each is handled while the effects of another are on their way, until few are left."""
    with reading(ByTurn(), MANY // 4, gate=Settling()) as it:

        def goes_on(count: int) -> bool:
            """After an answer with so many, though commits are under way."""
            reads = len(it.link.reads)
            it.answer(count, spread)
            is_next_sent = len(it.link.reads) > reads
            it.holdings.changed.set()
            it.loop.settle()
            assert len(it.link.reads) == reads + 1
            return is_next_sent

        assert not goes_on(LEAST)
        assert goes_on(2 * PORTION)
        assert goes_on(PORTION)
        assert goes_on(LEAST)
        assert not goes_on(LEAST - 4)
        assert not goes_on(PORTION)


class Answering(OpenGate):
    """A commit is under way until the test says so."""

    def __init__(self) -> None:
        self.within_s: float | None = None
        self.has_come = asyncio.Event()

    async def answered(self, within_s: float) -> None:
        self.within_s = within_s
        await self.has_come.wait()


def test_of_several_portions_the_next_is_read_when_a_commit_under_way_is_answered():
    """Before, those who are answered cannot have sent more; few entries do not wait that way."""
    router, gate = ByTurn(), Answering()
    with reading(router, MANY // 4, gate=gate) as it:
        it.answer(LEAST, spread)
        assert (len(it.link.reads), gate.within_s) == (2, None)
        it.answer(2 * PORTION, spread)
        assert (len(it.link.reads), gate.within_s) == (2, ANSWER_WITHIN_S)
        assert sum(router.turns) == LEAST + 2 * PORTION, "what was read is handled meanwhile"
        gate.has_come.set()
        it.loop.settle()
        assert len(it.link.reads) == 3


def test_first_of_a_burst_waits_for_the_rest_where_bursts_are_the_rule():
    router = Noting()
    with reading(router) as it:

        def answer(count: int, within_s: float = 0.0) -> None:
            it.loop.advance(within_s)
            it.answer(count, entries)

        def can_wait() -> bool:
            return "BLOCK" in it.link.asked[-1]

        answer(1)
        assert router.given == [1], "nobody knows of a burst yet"
        answer(FEW, within_s=2 * AT_ONCE_S)
        answer(1)
        assert router.given == [1, FEW, 1], "those came later: they were no burst"
        answer(FEW)
        assert can_wait()
        cursor = it.link.asked[-1][-1]
        answer(1)
        assert router.given[3:] == [FEW], "it is not handled yet"
        assert not can_wait()
        assert it.link.asked[-1][-1] == cursor, "and is brought again"
        answer(3 * FEW)
        assert router.given[4:] == [3 * FEW]
        answer(1)
        answer(1)
        assert router.given[5:] == [1], "nothing came behind it"
        answer(1)
        assert router.given[6:] == [1], "and so the next one is handled at once"


def test_entries_gather_before_a_read_where_cores_are_crowded():
    router, gather_s = ByTurn(), 0.1
    with reading(router, PORTION, is_crowded=True, gather_s=gather_s) as it:
        it.loop.advance(10 * WINDOW_S)
        it.answer(ENOUGH, entries)
        assert len(it.link.reads) == 2, "until now nobody knows"
        for _ in range(2):
            it.loop.advance(WINDOW_S)
            it.answer(ENOUGH, entries)
        reads = len(it.link.reads)
        it.loop.advance(gather_s * 0.9)
        assert len(it.link.reads) == reads
        it.loop.advance(gather_s * 0.2)
        assert len(it.link.reads) == reads + 1
        it.answer(3 * PORTION, spread)
        assert router.turns[-1] == 3 * PORTION, "a commit for all of them costs the least"
