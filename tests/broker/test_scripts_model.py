"""The scripts do what the model says, on every server and in memory, whatever happens.

Look for more with ``scripts/test tests/broker/test_scripts_model.py --hypothesis-profile=long``.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.broker.machine import RUN, beside_model, run_machine
from tests.broker.real import Real
from tests.broker.tenure import PLACES, opened
from tests.servers_plugin import default_server


@pytest.mark.parametrize("server", PLACES)
def test_scripts_do_what_the_model_says(server: str, server_pool: Any):
    chosen = settings()
    share = 1 if server == default_server() else 4
    runs = chosen.max_examples // RUN // share
    start = 0 if chosen.derandomize else random.getrandbits(32)
    with Real(opened(server, server_pool)) as real:
        machine = beside_model(real)
        run_machine(machine, range(start, start + runs), (Phase.generate, Phase.shrink))
        assert machine.examples >= runs * RUN
