from __future__ import annotations

import pytest

from wherry.broker.streams import RawEntry
from wherry.client.history import Kept, Page, Place

KEPT = Kept(length=10, ttl_ms=1_000)
NOW_MS = 100_000


def entry(entry_id: str) -> RawEntry:
    return entry_id.encode(), []


def page(
    *ids: str,
    before: str | None = None,
    length: int | None = None,
    added: int | None = None,
    is_last: bool = True,
    last_id: str | None = None,
) -> Page:
    """A page of a stream; the stream holds nothing but the page unless it is said."""
    newest = last_id if last_id is not None else (ids[-1] if ids else before or "")
    return Page(
        entries=[entry(one) for one in ids],
        is_last=is_last,
        before=entry(before) if before else None,
        first_id=before or (ids[0] if ids else ""),
        last_id=newest,
        length=len(ids) if length is None else length,
        added=added,
        redis_ms=NOW_MS,
    )


GONE = page()


@pytest.mark.parametrize(
    ("reader_at", "found", "is_behind", "why"),
    [
        (Place("0-0"), page("5-0", length=3, added=9), False, "starts at the oldest kept"),
        (Place("0-0"), GONE, False, "nothing was there, nothing is"),
        (Place("5-0"), page("6-0", before="5-0", added=9), False, "the last one taken is kept"),
        (Place("5-0"), page("6-0", before="4-0", added=9), False, "an older one is kept"),
        (Place("5-0"), page(last_id="5-0", length=0, added=5), False, "all of it was trimmed"),
        (Place("5-0"), page("5-1", length=1, added=9), False, "no id lies between"),
        (Place("5-0"), page("6-0", length=1, added=9), True, "trimmed, perhaps more"),
        (Place("5-0", 8, False), page("6-0", length=1, added=9), False, "exactly it was trimmed"),
        (Place("5-0", 7, False), page("6-0", length=1, added=9), True, "one more was trimmed"),
        (Place("0-0", 0, False), page("5-0", "6-0", length=2, added=2), False, "all is there"),
        (Place("0-0", 0, False), page("5-0", length=1, added=2), True, "the first was trimmed"),
        (Place("99500-0"), GONE, True, "vanished before its time"),
        (Place("98000-0"), GONE, False, "may have expired"),
        (Place("5-0"), page("99-0", length=1, added=1), True, "began anew before its time"),
        (Place("5-0"), page("1005-0", length=1, added=1), False, "began anew after it expired"),
        (Place("9-0"), page(before="8-0", added=8), True, "Redis has forgotten the newest"),
        (Place("5-0"), page("9000-0", length=9), False, "Redis 6, too short to have been trimmed"),
        (Place("5-0"), page("6-0", length=9), True, "Redis 6, vanished before its time"),
        (Place("5-0"), page("6-0", length=10), True, "Redis 6, perhaps trimmed"),
        (Place("0-0", None, False), page("6-0", "7-0"), False, "Redis 6, followed from its birth"),
    ],
)
def test_what_is_missing(reader_at: Place, found: Page, is_behind: bool, why: str):
    assert reader_at.is_behind(found, KEPT) is is_behind, why


def test_place_counts_from_the_oldest_kept():
    place = Place("0-0")
    place.advance(page("5-0", "6-0", length=4, added=10, is_last=False))
    assert (place.after, place.number, place.is_start) == ("6-0", 8, False)
    place.advance(page("7-0", before="6-0", length=4, added=10, is_last=False))
    assert place.number == 9
    place.step("8-0")
    assert (place.after, place.number) == ("8-0", 10)


def test_place_counts_from_the_end():
    place = Place("5-0")
    place.advance(page("6-0", before="5-0", length=4, added=10, is_last=False))
    assert place.number is None
    place.advance(page("7-0", before="6-0", length=4, added=10))
    assert place.number == 10


def test_place_in_a_stream_that_is_gone_counts_from_nothing():
    place = Place("5-0", 8, is_start=False)
    place.advance(GONE)
    assert (place.after, place.number) == ("5-0", 0)


def test_place_does_not_count_where_the_server_does_not():
    place = Place("0-0")
    place.advance(page("5-0", length=1))
    place.step("6-0")
    assert (place.after, place.number) == ("6-0", None)


def test_entries_that_were_taken_are_passed():
    place = Place("10-2")
    assert place.is_passed("9-9")
    assert place.is_passed("10-2")
    assert not place.is_passed("10-10")
