"""Each way to break a script is caught by the machine. ``-v`` shows after how many examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase

from tests.broker.machine import beside_model, run_machine
from tests.broker.real import Real
from tests.broker.script_mutants import MUTANTS, mutated
from tests.broker.tenure import opened
from tests.servers_plugin import default_server

SEEDS = range(50)


@pytest.fixture(scope="module")
def caught(request: pytest.FixtureRequest) -> Iterator[dict[str, int]]:
    """Mutant -> examples that it took; shown when all have run."""
    table: dict[str, int] = {}
    yield table
    if not table:
        return
    lines = [f"{len(table)} mutants of the scripts caught, after {max(table.values())} at most"]
    if request.config.get_verbosity() > 0:
        lines += [f"  {name}: {table[name]}" for name in MUTANTS if name in table]
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", *lines, sep="\n")


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, server_pool: Any, caught: dict[str, int]):
    mutant = MUTANTS[name]
    with Real(opened(default_server(), server_pool)) as real:
        setattr(real.scripts, mutant.script, mutated(real.scripts, mutant))
        machine = beside_model(real)
        # Nothing else counts: a mutant that is no Lua would be caught by the server.
        with pytest.raises(AssertionError):
            run_machine(machine, SEEDS, (Phase.generate,))
        caught[name] = machine.examples - 1  # Hypothesis ran the failing one once more
