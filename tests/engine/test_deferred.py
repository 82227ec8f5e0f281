"""Deferred ids against a plain model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.deferred import Deferred
from wherry.model import EntryId, ScopeId

SCOPES = [ScopeId("a"), ScopeId("b")]


def test_largest_ids_are_kept():
    deferred = Deferred()
    largest = EntryId(f"{2**64 - 1}-{2**64 - 1}")
    deferred.add(SCOPES[0], largest)
    assert deferred.take(SCOPES[0], 1) == [largest]


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "take", "back", "clear"]), st.sampled_from(SCOPES)),
        max_size=80,
    ),
    st.integers(1, 5),
)
def test_ids_come_in_order_for_each_scope(steps: list[tuple[str, ScopeId]], most: int):
    deferred = Deferred()
    model: dict[ScopeId, list[EntryId]] = {scope: [] for scope in SCOPES}
    number = 0
    for step, scope in steps:
        if step == "add":
            number += 1
            entry_id = EntryId(f"{number}-{number % 3}")
            deferred.add(scope, entry_id)
            model[scope].append(entry_id)
        elif step == "clear":
            deferred.clear()
            model = {one: [] for one in SCOPES}
        else:
            taken = list(deferred.take(scope, most))
            assert taken == model[scope][:most]
            if step == "back":
                deferred.give_back(scope, taken[1:])
                del model[scope][:1]
            else:
                del model[scope][:most]
        assert deferred.count == sum(map(len, model.values()))
        for one in SCOPES:
            assert deferred.has(one) == bool(model[one])
