"""An outage is said once, waited out with growing pauses, and given up when it cannot be mended."""

from __future__ import annotations

import pytest

from tests.e2e.rig import Notes
from wherry.errors import StoreRefused, StoreUnavailable
from wherry.runtime import outage
from wherry.runtime.outage import Outage

GONE = StoreUnavailable("gone")
REFUSED = StoreRefused("no")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(outage, "MAX_PAUSE_S", 0.004)
    monkeypatch.setattr(outage, "PATIENCE_S", 0.2)


class Told(Notes):
    """Keeps warnings alone."""

    def detail(self, event: str, **data: object) -> None:
        pass


async def test_is_said_once_when_it_begins_and_once_when_it_is_over():
    hooks = Told()
    trouble = Outage("reading", hooks)
    trouble.over()
    for _ in range(2):
        for _ in range(4):
            await trouble.wait(GONE)
        trouble.over()
        trouble.over()
    assert [event for event, _ in hooks.said] == ["reading waits for Redis", "reading goes on"] * 2


async def test_refusal_is_given_up_after_a_time():
    trouble = Outage("reading", Notes())

    async def bear() -> None:
        while True:
            await trouble.wait(REFUSED)

    with pytest.raises(StoreRefused):
        await bear()


async def test_refusals_between_other_troubles_are_borne():
    """A server that comes up knows its users a moment later."""
    trouble = Outage("reading", Notes())
    for error in [REFUSED, REFUSED, GONE] * 60:
        await trouble.wait(error)


async def test_what_time_can_mend_is_borne_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outage, "PATIENCE_S", 0.0)
    trouble = Outage("reading", Notes())
    for _ in range(6):
        await trouble.wait(GONE)
