"""What a supervisor does next, as stories: at what time what happens, and the steps that follow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.exits import ExitCode
from wherry.engine import supervision as rules
from wherry.engine.processes import Kill, Life, Process, Start, Step, Tell, Terminate
from wherry.engine.supervision import Supervision

DRAIN_S = 25.0
SHORT = {Start: "start", Terminate: "term", Kill: "kill"}

Line = tuple[float, str, Sequence[str]]
"""When, what happens ("ready 1", "ended 2 -9", "renew", ...), the steps that follow."""


class Story:
    """A supervision, and what it has told."""

    def __init__(self, workers: int, *, draw: float = 0.0, awaits_changes: bool = False) -> None:
        self.supervision = Supervision(
            workers, drain_timeout_s=DRAIN_S, draw=lambda: draw, awaits_changes=awaits_changes
        )
        self.told: list[str] = []

    def happens(self, at_s: float, what: str) -> list[str]:
        name, *words = what.split(maxsplit=2)
        arguments: list[int | str] = [int(words[0])] if words else []
        if len(words) > 1:
            arguments.append(int(words[1]) if name == "ended" else words[1])
        steps: list[Step] = getattr(self.supervision, name)(*arguments, at_s)
        self.told += [one.event for one in steps if isinstance(one, Tell)]
        return [f"{SHORT[type(one)]} {one.number}" for one in steps if not isinstance(one, Tell)]

    def told_of(self, text: str) -> int:
        return sum(text in one for one in self.told)


READY = [(0.0, "wake", ["start 1"]), (1.0, "ready 1", ["start 2"]), (2.0, "ready 2", [])]
"""Two workers, both ready."""

STORIES: dict[str, tuple[int, Sequence[Line]]] = {
    "one has a head start": (
        3,
        [
            (0, "wake", ["start 1"]),
            (1.9, "wake", []),
            (2.0, "wake", ["start 2", "start 3"]),
        ],
    ),
    "all are started when one is ready": (
        3,
        [(0, "wake", ["start 1"]), (0.5, "ready 1", ["start 2", "start 3"])],
    ),
    "who is killed is replaced at once": (2, [*READY, (20, "ended 1 -9", ["start 3"])]),
    "who ends soon again is replaced later": (
        2,
        [
            *READY,
            (3, "ended 1 -9", ["start 3"]),
            (4, "ready 3", []),
            (5, "ended 3 -9", []),
            (5.4, "wake", []),
            (5.5, "wake", ["start 4"]),
            (6, "ready 4", []),
            (7, "ended 4 -9", []),
            (7.9, "wake", []),
            (8, "wake", ["start 5"]),
            (9, "ready 5", []),
            (14, "ended 5 -9", ["start 6"]),
        ],
    ),
    "who drains unasked is replaced": (2, [*READY, (20, "ended 2 0", ["start 3"])]),
    "a restart replaces one after another, new before old": (
        2,
        [
            *READY,
            (3, "renew", ["start 3"]),
            (4, "ready 3", ["term 1"]),
            (5, "ended 1 0", ["start 4"]),
            (6, "ready 4", ["term 2"]),
            (7, "ended 2 0", []),
        ],
    ),
    "a restart during a restart replaces those that were replaced, too": (
        2,
        [
            *READY,
            (3, "renew", ["start 3"]),
            (4, "ready 3", ["term 1"]),
            (5, "ended 1 0", ["start 4"]),
            (6, "renew", ["term 4"]),
            (7, "ended 4 -15", ["start 5"]),
            (8, "ready 5", ["term 3"]),
            (9, "ended 3 0", ["start 6"]),
            (10, "ready 6", ["term 2"]),
            (11, "ended 2 0", []),
        ],
    ),
    "who is to be replaced may die first": (
        2,
        [
            *READY,
            (3, "renew", ["start 3"]),
            (4, "ended 1 -9", ["start 4"]),
            (5, "ready 3", []),
            (6, "ready 4", ["term 2"]),
        ],
    ),
    "who is worn is replaced, one at a time": (
        2,
        [
            *READY,
            (30, "recycle 1 max_messages", ["start 3"]),
            (30, "recycle 2 max_messages", []),
            (31, "ready 3", ["term 1"]),
            (32, "ended 1 0", ["start 4"]),
            (33, "ready 4", ["term 2"]),
        ],
    ),
    "who is worn soon serves for a while": (
        1,
        [
            (0, "wake", ["start 1"]),
            (1, "ready 1", []),
            (2, "recycle 1 max_memory", []),
            (5.9, "wake", []),
            (6, "wake", ["start 2"]),
        ],
    ),
    "a restart that does not start is given up, and the old go on": (
        1,
        [
            (0, "wake", ["start 1"]),
            (1, "ready 1", []),
            (2, "renew", ["start 2"]),
            (3, "ended 2 3", ["start 3"]),
            (4, "ended 3 3", []),
            (4.5, "wake", ["start 4"]),
            (5, "ended 4 3", []),
            (6, "wake", ["start 5"]),
            (7, "ended 5 3", []),
            (9, "wake", ["start 6"]),
            (10, "ended 6 3", []),
            (100, "wake", []),
        ],
    ),
    "a restart with wrong usage is given up at once": (
        1,
        [
            (0, "wake", ["start 1"]),
            (1, "ready 1", []),
            (2, "renew", ["start 2"]),
            (3, "ended 2 2", []),
            (100, "wake", []),
        ],
    ),
    "all drain at the same time": (2, [*READY, (3, "stop", ["term 1", "term 2"])]),
    "a stop does not hurry who drains already": (
        2,
        [
            *READY,
            (3, "renew", ["start 3"]),
            (4, "ready 3", ["term 1"]),
            (5, "stop", ["term 2", "term 3"]),
            (6, "stop", ["term 1", "term 2", "term 3"]),
            (7, "stop", ["kill 1", "kill 2", "kill 3"]),
        ],
    ),
    "who does not end is killed": (
        2,
        [
            *READY,
            (3, "stop", ["term 1", "term 2"]),
            (4, "ended 2 0", []),
            (37.9, "wake", []),
            (38, "wake", ["kill 1"]),
            (99, "wake", []),
        ],
    ),
    "nothing is started any more after a stop": (
        2,
        [*READY, (3, "stop", ["term 1", "term 2"]), (4, "ended 1 -9", []), (5, "renew", [])],
    ),
    "while one serves it is tried for ever": (
        2,
        [
            *READY[:2],
            (2, "ended 2 1", ["start 3"]),
            (3, "ended 3 1", []),
            (3.5, "wake", ["start 4"]),
            (4, "ended 4 1", []),
            (5, "wake", ["start 5"]),
            (6, "ended 5 1", []),
            (8, "wake", ["start 6"]),
            (9, "ended 6 1", []),
            (13, "wake", ["start 7"]),
            (14, "ended 7 1", []),
            (22, "wake", ["start 8"]),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str):
    workers, lines = STORIES[name]
    story = Story(workers)
    for at_s, what, steps in lines:
        assert story.happens(at_s, what) == steps, f"{what} at {at_s}"


def test_failing_start_is_tried_five_times_and_told_once():
    story = Story(4)
    at_s, starts = 0.0, story.happens(0, "wake")
    for _ in range(rules.MAX_TRIES):
        while not starts:
            at_s = story.supervision.due_at_s(at_s) or pytest.fail("it waits for nothing")
            starts = story.happens(at_s, "wake")
        assert len(starts) == 1  # one tries for all four
        starts = story.happens(at_s := at_s + 0.5, f"ended {starts[0].split()[1]} 3")
    assert starts == []
    assert story.supervision.is_over
    assert story.supervision.exit_code == 3
    assert "ended at its start 5 times" in story.supervision.failure


@pytest.mark.parametrize(
    ("code", "tries", "exit_code"),
    [(1, 5, 3), (3, 5, 3), (-9, 5, 3), (0, 5, 3), (4, 5, 4), (2, 1, 2), (5, 1, 5), (7, 1, 7)],
)
def test_exit_code_when_no_worker_starts(code: int, tries: int, exit_code: int):
    story = Story(1)
    story.happens(0, "wake")
    for number in range(1, tries + 1):
        assert not story.supervision.is_over
        if number not in story.supervision.processes:
            story.happens(1000.0 * number, "wake")
        story.happens(1000.0 * number, f"ended {number} {code}")
    assert story.supervision.is_over
    assert story.supervision.exit_code == exit_code


def test_changes_are_waited_for_when_nothing_starts():
    story = Story(2, awaits_changes=True)
    story.happens(0, "wake")
    assert story.happens(1, "ended 1 3") == []
    assert story.told_of("waiting for a change") == 1
    assert story.supervision.due_at_s(1) is None
    assert story.happens(500, "renew") == ["start 2"]


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((0, 6), 6), ((6, 0), 6), ((6, 1), 1), ((-9, 6), -9), ((0, 4), 4)],
)
def test_exit_code_is_the_worst_of_those_that_were_told_to_stop(codes: tuple[int, int], worst: int):
    story = Story(2)
    for at_s, what, _ in READY:
        story.happens(at_s, what)
    story.happens(3, "stop")
    for number, code in enumerate(codes, start=1):
        story.happens(4, f"ended {number} {code}")
    assert story.supervision.is_over
    assert story.supervision.exit_code == worst


def test_killed_at_the_end_counts_as_cut_off():
    story = Story(1)
    story.happens(0, "wake")
    story.happens(1, "ready 1")
    story.happens(2, "stop")
    assert story.happens(2 + DRAIN_S + rules.DRAIN_MARGIN_S, "wake") == ["kill 1"]
    story.happens(40, "ended 1 -9")
    assert story.supervision.exit_code == 6


def test_stop_before_anybody_is_ready_is_a_clean_end():
    story = Story(2)
    story.happens(0, "wake")
    assert story.happens(0.1, "stop") == ["term 1"]
    story.happens(0.2, "ended 1 -15")
    assert story.supervision.is_over
    assert story.supervision.exit_code == 0


def test_backoff_is_up_to_half_less_by_chance_and_has_an_end():
    for draw, longest_s in ((0.0, rules.BACKOFF_MAX_S), (1.0, rules.BACKOFF_MAX_S / 2)):
        story = Story(2, draw=draw)
        for at_s, what, _ in READY:
            story.happens(at_s, what)
        at_s, number, waits_s = 3.0, 2, []
        for _ in range(12):
            story.happens(at_s, f"ended {number} 1")
            due_s = story.supervision.due_at_s(at_s) or at_s
            waits_s.append(due_s - at_s)
            at_s = due_s
            started = story.happens(at_s, "wake")
            number = max(story.supervision.processes)
            assert started in ([], [f"start {number}"])
        assert max(waits_s) == longest_s


def test_everybody_ready_is_told_once():
    story = Story(2)
    for at_s, what, _ in [*READY, (3, "wake", [])]:
        story.happens(at_s, what)
    assert story.told == ["all workers are ready"]


def test_slow_start_is_told_once():
    story = Story(1)
    story.happens(0, "wake")
    for at_s in (29, 30, 31, 60):
        story.happens(at_s, "wake")
    assert story.told_of("is still starting") == 1


def test_exit_codes_are_those_of_the_command_line():
    assert rules.DRAINED == ExitCode.DRAINED
    assert rules.STARTUP_FAILED == ExitCode.STARTUP_FAILED
    assert rules.UNREACHABLE == ExitCode.UNREACHABLE
    assert rules.CUT_OFF == ExitCode.DRAIN_DEADLINE_PASSED
    assert {ExitCode.USAGE, ExitCode.REFUSED, ExitCode.INCOMPATIBLE} == rules.HOPELESS


def test_process_that_stops_does_not_serve_again():
    process = Process(1, 0, 0, 0.0)
    process.move(Life.STOPPING)
    with pytest.raises(ValueError, match="cannot go from"):
        process.move(Life.SERVING)
    assert process.life is Life.STOPPING


def serving(story: Story) -> int:
    return sum(one.life is Life.SERVING for one in story.supervision.processes.values())


@given(st.data())
def test_restarts_leave_as_many_serving_and_one_process_more_at_most(data: st.DataObject):
    """Whatever is asked for: nobody is told to go before another serves."""
    workers = data.draw(st.integers(1, 4))
    story = Story(workers)
    at_s = 0.0
    story.happens(at_s, "wake")
    while serving(story) < workers:
        starting = [
            n for n, one in story.supervision.processes.items() if one.life is Life.STARTING
        ]
        story.happens(at_s := at_s + 1, f"ready {starting[0]}")
    for _ in range(data.draw(st.integers(1, 30))):
        choices = ["renew", "wake"]
        for number, one in story.supervision.processes.items():
            if one.life is Life.STARTING:
                choices += [f"ready {number}", f"ended {number} 3"]
            elif one.life is Life.STOPPING:
                choices.append(f"ended {number} 0")
            else:
                choices.append(f"recycle {number} max_memory")
        at_s += data.draw(st.sampled_from([0.1, 1.0, 31.0]))
        story.happens(at_s, data.draw(st.sampled_from(choices)))
        assert serving(story) == workers
        assert len(story.supervision.processes) <= workers + 1
    assert not story.supervision.failure
