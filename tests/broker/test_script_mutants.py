"""Each way to break a script is caught by the machine. ``-rP`` shows after how many examples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase

from tests.broker.machine import beside_model, run_machine
from tests.broker.real import Real
from tests.broker.script_mutants import MUTANTS, mutated
from tests.broker.tenure import opened
from tests.servers_plugin import default_server

SEEDS = range(50)
CAUGHT_BY = {
    "epoch instead of token": 17,
    "an error is told to a reply key of any type": 3,
    "nothing is void behind a bad emit": 13,
    "answer to a key of any type": 5,
    "no emit is void": 8,
    "emit of an entry that is gone": 11,
    "no hold is void": 12,
    "no burial is void": 11,
    "emit not numbered": 3,
    "attempts of the same call outlive their entry": 4,
    "second unclean end is told like the first": 7,
    "room counted once for a replay": 11,
    "replayed entry tells who waited": 8,
    "replayed entry has expired": 31,
    "first id is forgotten by the second replay": 14,
    "row is forgotten before the entry is looked at": 3,
}
"""Mutant -> a seed that notices it where the first ones do not; it is tried before them."""


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, server_pool: Any):
    mutant = MUTANTS[name]
    with Real(opened(default_server(), server_pool)) as real:
        setattr(real.scripts, mutant.script, mutated(real.scripts, mutant))
        machine = beside_model(real)
        # Nothing else counts: a mutant that is no Lua would be caught by the server.
        with pytest.raises(AssertionError):
            run_machine(machine, [CAUGHT_BY.get(name, 0), *SEEDS], (Phase.generate,))
        # Hypothesis ran the failing one once more.
        print(f"{name}: caught after {machine.examples - 1} examples")
