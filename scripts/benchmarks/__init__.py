"""The benchmarks behind ``scripts/bench``: one module for each scenario, the rest is shared."""
