"""Life: the states of a lane, and the steps from one to another."""

from __future__ import annotations

from enum import Enum


class LaneState(Enum):
    """Life of a lane."""

    OPEN = "open"
    ENDING = "ending"
    ENDED = "ended"
    ABANDONED = "abandoned"


TRANSITIONS: dict[LaneState, frozenset[LaneState]] = {
    LaneState.OPEN: frozenset({LaneState.ENDING, LaneState.ENDED}),
    LaneState.ENDING: frozenset({LaneState.ENDED, LaneState.ABANDONED}),
    LaneState.ABANDONED: frozenset({LaneState.ENDED}),
    LaneState.ENDED: frozenset(),
}
