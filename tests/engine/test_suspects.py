"""Which entries are counted, suspected and blamed after an unclean takeover."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.engine.suspects import (
    DEATH,
    FIRST_PATIENCE_S,
    LEAST_SHARE_S,
    Sharing,
    Takeover,
    is_suspect,
    probe_limit_s,
)
from wherry.model import AttemptsRow, EntryId, ScopeId, Token

OLD, OLDER, LAST = Token("4:old"), Token("3:older"), EntryId("50-0")


def takeover(**more: Any) -> Takeover:
    return Takeover(**{"previous": OLD, "last_id": LAST, "most": 3} | more)


def judge(judging: Takeover, entry_id: str, scope: str = "a", row: Any = None) -> Any:
    return judging.judge(EntryId(entry_id), ScopeId(scope), row)


@pytest.mark.parametrize(
    ("before", "more", "after"),
    [
        (None, {}, AttemptsRow(crashes=1)),
        (AttemptsRow(crashes=1), {}, AttemptsRow(crashes=2)),
        (AttemptsRow(attempts=3, error="E"), {}, AttemptsRow(attempts=3, error="E", crashes=1)),
        # A mark of the owner that has left: it died of this one, or stalled in it.
        (
            AttemptsRow(attempts=1, crashes=2, probe=OLD),
            {"was_probing": True},
            AttemptsRow(attempts=2, crashes=2, error=DEATH),
        ),
        # A mark of one before it says nothing about this death.
        (AttemptsRow(crashes=2, probe=OLDER), {}, AttemptsRow(crashes=3)),
        # It died of another, which was alone.
        (None, {"was_probing": True}, None),
        (AttemptsRow(crashes=5), {"was_probing": True}, None),
        # What is held was not running.
        (AttemptsRow(attempts=5, is_held=True), {}, None),
    ],
)
def test_what_a_takeover_counts(before: Any, more: dict[str, Any], after: Any):
    assert judge(takeover(**more), "1-0", row=before) == after


def test_only_the_first_of_a_scope_is_counted():
    judging = takeover()
    assert [bool(judge(judging, f"{n}-0", scope)) for n, scope in enumerate("abab")] == [
        True, True, False, False
    ]  # fmt: skip


def test_what_came_after_the_takeover_is_in_nobodys_hand():
    judging = takeover()
    assert judge(judging, "50-0") is not None
    assert judge(judging, "50-1", "b") is None
    assert not judging.is_over(LAST)
    assert judging.is_over(EntryId("50-1"))


def test_no_more_scopes_are_counted_than_a_worker_may_have_in_hand():
    judging = takeover()
    counted = [judge(judging, f"{n}-0", f"s{n}") is not None for n in range(1, 6)]
    assert counted == [True, True, True, False, False]


def test_a_few_crashes_prove_nothing():
    assert [is_suspect(AttemptsRow(crashes=crashes)) for crashes in range(6)] == [
        False, False, False, False, False, True
    ]  # fmt: skip


def test_a_probe_lasts_longer_after_each_crash_and_not_for_ever():
    assert [probe_limit_s(5, crashes) for crashes in (5, 6, 7, 10, 11, 100)] == [
        5, 10, 20, 160, 160, 160
    ]  # fmt: skip


def test_normal_work_gets_as_long_as_a_stop_has_taken():
    sharing = Sharing(25.0)
    assert sharing.share_s == LEAST_SHARE_S
    sharing.stopped(7.0, was_quiet=True)
    assert sharing.share_s == 7.0
    sharing.stopped(0.001, was_quiet=True)
    assert sharing.share_s == LEAST_SHARE_S


def test_patience_doubles_up_to_its_end_and_begins_anew_when_there_was_quiet():
    sharing = Sharing(5.0)
    seen = [(sharing.patience_s, sharing.is_at_end)]
    for _ in range(4):
        sharing.stopped(1.0, was_quiet=False)
        seen.append((sharing.patience_s, sharing.is_at_end))
    assert seen == [(1.0, False), (2.0, False), (4.0, False), (5.0, True), (5.0, True)]
    sharing.stopped(1.0, was_quiet=True)
    assert sharing.patience_s == FIRST_PATIENCE_S
    assert Sharing(0.5).is_at_end
